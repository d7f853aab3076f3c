"""Tiny random models of the families people use, with chat templates and tokenizers that work as the real ones do.

Real are the config classes, the names of the special tokens, how text is cut before merges, what a template adds, trims
and switches; the vocabularies are learned from a few lines and the weights are random.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import (
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from workbench.backbone import Backbone

Name = Literal["qwen3", "qwen2.5", "llama-3.1", "llama-3.2", "plain", "sentences"]
NAMES: tuple[Name, ...] = ("qwen3", "qwen2.5", "llama-3.1", "llama-3.2", "plain", "sentences")
LINES = (
    "Tom has 12 apples and buys 5 more apples.\nHow many apples does Tom have?\n\n12 + 5 = 17 apples\n#### 17",
    "Ann had 30 pens. She gave 4 pens to each of her 3 friends.\n\n3 * 4 = 12 pens\n30 - 12 = 18 pens\n#### 18",
    "Solve the problem step by step. You are a helpful assistant.\nsystem user assistant\nToday Date: 26 Jul 2024",
)

# Text is cut like this before merges; a run of blanks, a mark and its line breaks become one piece each.
CUT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|DIGITS| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"

QWEN3 = """
{%- for turn in messages %}
    {{- '<|im_start|>' + turn.role + '\\n' }}
    {%- if turn.role == 'assistant' and loop.last %}
        {{- '<think>\\n\\n</think>\\n\\n' + turn.content.split('</think>')[-1].lstrip('\\n') }}
    {%- else %}
        {{- turn.content }}
    {%- endif %}
    {{- '<|im_end|>\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
    {%- if enable_thinking is defined and enable_thinking is false %}
        {{- '<think>\\n\\n</think>\\n\\n' }}
    {%- endif %}
{%- endif %}"""

QWEN25 = """
{%- if messages[0].role != 'system' %}
    {{- '<|im_start|>system\\nYou are a helpful assistant.<|im_end|>\\n' }}
{%- endif %}
{%- for turn in messages %}
    {{- '<|im_start|>' + turn.role + '\\n' + turn.content + '<|im_end|>' + '\\n' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|im_start|>assistant\\n' }}
{%- endif %}"""

LLAMA = """
{{- bos_token }}
{%- if not date_string is defined %}
    CLOCK
{%- endif %}
{{- '<|start_header_id|>system<|end_header_id|>\\n\\nCutting Knowledge Date: December 2023\\n' }}
{{- 'Today Date: ' + date_string + '\\n\\n<|eot_id|>' }}
{%- for turn in messages %}
    {{- '<|start_header_id|>' + turn.role + '<|end_header_id|>\\n\\n' + turn.content | trim + '<|eot_id|>' }}
{%- endfor %}
{%- if add_generation_prompt %}
    {{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}
{%- endif %}"""
FIXED = "{%- set date_string = '26 Jul 2024' %}"
TODAY = "{%- set date_string = strftime_now('%d %b %Y') if strftime_now is defined else '26 Jul 2024' %}"

IM = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|box_start|>", "<|box_end|>")
HEADERS = (
    *("<|begin_of_text|>", "<|end_of_text|>", "<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    *("<|finetune_right_pad_id|>", "<|start_header_id|>", "<|end_header_id|>", "<|eom_id|>", "<|eot_id|>"),
)


@dataclass(frozen=True)
class Made:
    """What differs between families; ids are given by their tokens. `words` are tokens that are no control tokens."""

    model: Literal["qwen3", "qwen2", "llama"]
    special: tuple[str, ...]
    eos: str
    template: str = ""
    words: tuple[str, ...] = ()
    bos: str | None = None
    pad: str | None = None
    digits: str = r"\p{N}"
    generation: tuple[tuple[str, Any], ...] = ()
    stops: tuple[str, ...] = ()


SAMPLED = (("do_sample", True), ("top_k", 20), ("repetition_penalty", 1.05))
FAMILIES: dict[Name, Made] = {
    "qwen3": Made(
        "qwen3", IM, "<|im_end|>", QWEN3, ("<think>", "</think>"), pad="<|endoftext|>",
        generation=(("do_sample", True), ("temperature", 0.6), ("top_k", 20), ("top_p", 0.95)),
        stops=("<|im_end|>", "<|endoftext|>"),
    ),
    "qwen2.5": Made(
        "qwen2", IM, "<|im_end|>", QWEN25, pad="<|endoftext|>",
        generation=(*SAMPLED, ("temperature", 0.7), ("top_p", 0.8)), stops=("<|im_end|>", "<|endoftext|>"),
    ),
    "llama-3.1": Made(
        "llama", HEADERS, "<|eot_id|>", LLAMA.replace("CLOCK", FIXED), bos="<|begin_of_text|>", digits=r"\p{N}{1,3}",
        generation=(("do_sample", True), ("temperature", 0.6), ("top_p", 0.9)),
        stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "llama-3.2": Made(
        "llama", tuple(t for t in HEADERS if "pad" not in t), "<|eot_id|>", LLAMA.replace("CLOCK", TODAY),
        bos="<|begin_of_text|>", digits=r"\p{N}{1,3}", stops=("<|end_of_text|>", "<|eom_id|>", "<|eot_id|>"),
    ),
    "plain": Made("llama", ("<s>", "</s>"), "</s>", bos="<s>", stops=("</s>",)),  # no template, no marks, no pad
    "sentences": Made("llama", ("<s>", "</s>"), "</s>", "{{ bos_token }}"  # as SentencePiece: a blank before the text
        "{% for turn in messages %}[{{ turn.role }}] {{ turn.content }}"
        "{% if turn.role == 'assistant' %}{{ eos_token }}{% endif %}{% endfor %}", bos="<s>", stops=("</s>",)),
}  # fmt: skip


def family(name: Name) -> Backbone:
    """A backbone of the family, made in memory; the same weights every time."""
    made = FAMILIES[name]
    tokenizer = make_tokenizer(made, sentences=name == "sentences")
    ids: dict[str, Any] = {token: tokenizer.convert_tokens_to_ids(token) for token in made.special}
    model = make_model(made.model, len(tokenizer), None if made.bos is None else ids[made.bos], ids[made.stops[0]])
    stops = [ids[token] for token in made.stops]
    model.generation_config = GenerationConfig(eos_token_id=stops, **dict(made.generation))
    return Backbone(model, tokenizer, name)


def make_tokenizer(made: Made, sentences: bool = False) -> PreTrainedTokenizerFast:
    """Byte-level merges as in Qwen and Llama 3, or with `sentences` blanks written as a letter as in Llama 2."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>" if sentences else None))
    alphabet: list[str] = []
    if sentences:
        tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
        tokenizer.decoder = decoders.Metaspace(prepend_scheme="first", split=False)
    else:
        cut = pre_tokenizers.Split(Regex(CUT.replace("DIGITS", made.digits)), "isolated")
        tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
            [cut, pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False)]
        )
        tokenizer.decoder = decoders.ByteLevel()
        alphabet = pre_tokenizers.ByteLevel.alphabet()
    special = ["<unk>"] if sentences else []
    trainer = trainers.BpeTrainer(
        vocab_size=450 if alphabet else 150, initial_alphabet=alphabet, special_tokens=special, show_progress=False
    )
    tokenizer.train_from_iterator([*LINES] if alphabet else [line.replace("\n", " \n ") for line in LINES], trainer)
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in made.special])
    tokenizer.add_tokens([AddedToken(token, special=False, normalized=False) for token in made.words])
    if made.bos:  # as the real ones do unless told not to
        bos = (made.bos, tokenizer.token_to_id(made.bos))
        tokenizer.post_processor = processors.TemplateProcessing(single=f"{made.bos} $A", special_tokens=[bos])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token=made.bos, eos_token=made.eos, pad_token=made.pad,
        chat_template=made.template or None,
    )  # fmt: skip


def make_model(kind: str, vocabulary: int, bos: int | None, eos: int) -> Any:
    """Two layers of width 32, large random float32 weights."""
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    common = {**shape, "num_key_value_heads": 1, "vocab_size": vocabulary, "initializer_range": 0.2}
    common |= {"bos_token_id": bos, "eos_token_id": eos, "pad_token_id": None, "max_position_embeddings": 1024}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        if kind == "qwen3":
            return Qwen3ForCausalLM(Qwen3Config(head_dim=16, **common)).eval()
        if kind == "qwen2":
            return Qwen2ForCausalLM(Qwen2Config(**common)).eval()
        scaled = {"rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0}
        scaled |= {"high_freq_factor": 4.0, "original_max_position_embeddings": 512}
        return LlamaForCausalLM(LlamaConfig(rope_parameters=scaled, **common)).eval()


def save(backbone: Backbone, folder: Path) -> str:
    """Write a backbone as a folder that `Backbone.load` and the command line read."""
    backbone.model.save_pretrained(folder)
    backbone.tokenizer.save_pretrained(folder)
    return str(folder)
