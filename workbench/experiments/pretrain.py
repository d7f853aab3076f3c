"""Makes the shipped tiny backbone from nothing: a word tokenizer, a Qwen3-shaped model, five CPU minutes.

A document is `<bos> question <bot> hint <eot> completion <eos>`. The completion is the worked steps or the bare answer;
the loss is on the completion only. Two things make the model a fair subject for latent reasoning:

* The slot `<bot> .. <eot>` is empty in most documents and otherwise holds a hint, so the model knows how to read it.
  Hints of problems in known words are wrong half the time, so it trusts the words it knows more than the slot.
* New words (`arith.NONCE_VERBS`) mean + or - afresh in each document, and the rows of the embedding table that belong
  to new words never leave their random start. A verb of the shift domain is thus like any other new word: its
  meaning is nowhere in the model, and the slot is the place to learn it from.
"""

import hashlib
import json
import random
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers
from torch import Tensor
from torch.nn import functional as F
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoModelForCausalLM, PreTrainedTokenizerFast, Qwen3Config, Qwen3ForCausalLM

from ..analysis.scores import accuracy
from ..backbone import Backbone
from ..config import SEEDS, bounded
from ..evidence.collect import collect
from ..files import whole, write_json, write_text
from ..methods import Thoughts, build
from ..progress import progress
from ..runs import provenance
from ..tasks import arith, load_task
from ..training.optimizers import Muon

SPECIAL = ("<pad>", "<bos>", "<eos>", "<bot>", "<eot>", "<unk>")


@dataclass(frozen=True)
class PretrainConfig:
    """How the tiny backbone is made. The defaults are the shipped ones."""

    seed: int = 1
    """Seed of weights, problems and hints."""
    steps: int = 1500
    """Optimiser steps, rounded up to whole groups of 16 batches."""
    batch_size: int = 32
    """Documents per step."""
    width: int = 128
    """Hidden size."""
    layers: int = 4
    """Transformer layers."""
    heads: int = 4
    """Attention heads (key-value heads likewise)."""
    muon_lr: float = 0.015
    """Learning rate of Muon, for the matrices of the layers."""
    adamw_lr: float = 0.002
    """Learning rate of AdamW, for embeddings and norms."""
    new_words: float = 0.3
    """Share of documents with words whose meaning only a hint can tell."""
    hints: float = 0.7
    """Share of those documents whose slot holds the hint."""
    known_hints: float = 0.2
    """Share of the other documents whose slot holds a hint, right or wrong."""
    direct: float = 0.4
    """Share of documents that answer without worked steps."""
    drills: float = 0.45
    """Share of documents that are bare sums at the start; falls to zero half-way."""

    def __post_init__(self) -> None:
        bounded(
            self, seed=SEEDS, steps=(1, 1e7), batch_size=(1, 1e5), width=(2, 1e5), layers=(1, 1000), heads=(1, 1000)
        )
        bounded(self, **dict.fromkeys(("muon_lr", "adamw_lr"), (0, 1e6)))
        bounded(self, **dict.fromkeys(("new_words", "hints", "known_hints", "direct", "drills"), (0, 1)))
        if self.width % (2 * self.heads):
            raise ValueError(f"width is {self.width} and heads is {self.heads}; give a multiple of {2 * self.heads}")


def make_tokenizer() -> PreTrainedTokenizerFast:
    """Words, single digits and signs; decoding gives the text back."""
    rng = random.Random(0)
    words = set("0123456789+-*/=.,?:") | {"\n", "think", "####", *arith.NONCE_VERBS}
    for difficulty in arith.DIFFICULTIES.values():
        for verbs in (None, arith.SHIFT_VERBS):
            for _ in range(2000):
                example = arith.compose(rng, difficulty, verbs).example
                words |= set(" ".join([example.question, *example.steps]).replace(".", " ").replace("?", " ").split())
    words = {w for w in words if not (w.isdigit() and len(w) > 1)}
    vocabulary = {word: i for i, word in enumerate([*SPECIAL, *sorted(words)])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex(r"\n"), "isolated"),
            pre_tokenizers.Split(Regex(r"[^\S\n]+"), "removed"),
            pre_tokenizers.Split(Regex(r"\d|####|[.,?:+\-*/=]"), "isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [
            decoders.Replace(Regex(r"^"), " "),
            decoders.Fuse(),
            decoders.Replace(Regex(r"(?<=\d) (?=\d)"), ""),
            decoders.Replace(Regex(r" *\n *"), "\n"),
            decoders.Replace(Regex(r" {2,}"), " "),
            decoders.Replace(Regex(r" (?=[.,?:])"), ""),
            decoders.Replace(Regex(r"\A | \z"), ""),  # decoders.Strip panics on an empty text
        ]
    )
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token in SPECIAL])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>", unk_token="<unk>",
        extra_special_tokens=["<bot>", "<eot>"], clean_up_tokenization_spaces=False,
    )  # fmt: skip


def make_hint(rng: random.Random, problem: arith.Problem, config: PretrainConfig) -> str:
    """What the slot of a document holds, as text; mostly nothing."""
    if any(problem.words):
        if rng.random() > config.hints:
            return ""
        meaning = {word: symbol for word, symbol in zip(problem.words, problem.operations, strict=True) if word}
        glossary = " ".join(f"{word} {symbol}" for word, symbol in meaning.items())
        return rng.choice([" ".join(problem.operations), glossary])
    if rng.random() > config.known_hints:
        return ""
    results = [step.split("=")[1].split()[0] for step in problem.example.steps]
    wrong = " ".join(rng.choices("+-*/", weights=(4, 4, 1, 1), k=rng.randint(1, 3)))
    stray = " ".join(f"{word} {rng.choice('+-')}" for word in rng.sample(arith.NONCE_VERBS, rng.randint(1, 2)))
    return rng.choice([" ".join(problem.operations), ", ".join(results[: rng.randint(1, len(results))]), wrong, stray])


def documents(config: PretrainConfig) -> Iterator[tuple[str, str]]:
    """Endless (prompt, completion) pairs; questions of the train split only."""
    rng = random.Random(config.seed)
    difficulty = arith.DIFFICULTIES["standard"]
    total = config.steps * config.batch_size
    for index in range(10**9):
        if rng.random() < config.drills * (1 - 2 * index / total):
            yield "<bos>", "\n".join(_drill(rng, difficulty) for _ in range(7)) + "<eos>"
            continue
        words: arith.Words | None = None
        if rng.random() < config.new_words:
            nonce = rng.sample(arith.NONCE_VERBS, len(arith.NONCE_VERBS))
            words = {"+": tuple(nonce[::2]), "-": tuple(nonce[1::2])}
        problem = arith.compose(rng, difficulty, words)
        while arith.split_of(problem.example.question) != "train":
            problem = arith.compose(rng, difficulty, words)
        example = problem.example
        steps = "" if rng.random() < config.direct else "\n".join(["think:", *example.steps, ""])
        prompt = f"<bos>{example.question}<bot>{make_hint(rng, problem, config)}<eot>"
        yield prompt, f"{steps}#### {example.answer}<eos>"


def _drill(rng: random.Random, difficulty: arith.Difficulty) -> str:
    """One bare sum, e.g. "31 - 7 = 24"."""
    symbol = rng.choice("+-*/")
    b = rng.randint(1, difficulty.addend) if symbol in "+-" else rng.randint(2, difficulty.factor + 2)
    a = rng.randint(1, difficulty.largest if symbol in "+-" else difficulty.largest // b)
    a, c = {"+": (a, a + b), "-": (a + b, a), "*": (a, a * b), "/": (a * b, a)}[symbol]
    return f"{a} {symbol} {b} = {c}"


def batches(config: PretrainConfig, tokenizer: PreTrainedTokenizerFast) -> Iterator[tuple[Tensor, Tensor]]:
    """Pairs (ids, labels), each [document, position], padded right, of like lengths; labels are -100 off target."""
    source = documents(config)
    rng = random.Random(config.seed)
    group = 16
    for _ in range(0, config.steps, group):
        pairs = [next(source) for _ in range(group * config.batch_size)]
        prompts = tokenizer([p for p, _ in pairs], add_special_tokens=False)["input_ids"]
        targets = tokenizer([t for _, t in pairs], add_special_tokens=False)["input_ids"]
        order = sorted(range(len(pairs)), key=lambda i: len(prompts[i]) + len(targets[i]))
        starts = list(range(0, len(order), config.batch_size))
        rng.shuffle(starts)
        for start in starts:
            chosen = order[start : start + config.batch_size]
            ids = [torch.tensor(prompts[i] + targets[i]) for i in chosen]
            labels = [torch.tensor([-100] * len(prompts[i]) + targets[i]) for i in chosen]
            yield pad_sequence(ids, True, 0), pad_sequence(labels, True, -100)


def make_model(config: PretrainConfig, vocabulary: int) -> Qwen3ForCausalLM:
    """A Qwen3-shaped model with random weights."""
    torch.manual_seed(config.seed)
    shape = Qwen3Config(
        vocab_size=vocabulary, hidden_size=config.width, intermediate_size=336, num_hidden_layers=config.layers,
        num_attention_heads=config.heads, num_key_value_heads=config.heads, head_dim=config.width // config.heads,
        max_position_embeddings=512, tie_word_embeddings=True, bos_token_id=1, eos_token_id=2, pad_token_id=0,
    )  # fmt: skip
    return Qwen3ForCausalLM(shape)


def fit(model: Qwen3ForCausalLM, tokenizer: PreTrainedTokenizerFast, config: PretrainConfig) -> None:
    """Train in place, Muon on the matrices and AdamW on the rest, learning rate falling to zero over the last half."""
    matrices = [p for n, p in model.named_parameters() if p.ndim == 2 and "embed" not in n]
    rest = [p for n, p in model.named_parameters() if p.ndim != 2 or "embed" in n]
    optimizers = [
        Muon(matrices, config.muon_lr, 0.0, "auto"),
        torch.optim.AdamW(rest, lr=config.adamw_lr, betas=(0.9, 0.95), weight_decay=0.0),
    ]
    schedules = [
        torch.optim.lr_scheduler.LambdaLR(o, lambda k: min(1.0, (k + 1) / 30, 2 * (1 - k / config.steps)))
        for o in optimizers
    ]
    new = [v for group in arith.SHIFT_VERBS.values() for v in group] + list(arith.NONCE_VERBS)
    untrained = torch.tensor(tokenizer.convert_tokens_to_ids(new))
    table = model.model.embed_tokens.weight
    model.train()
    bar = progress(f"pretrain seed {config.seed}", config.steps)
    for step, (ids, labels) in enumerate(batches(config, tokenizer)):
        with torch.autocast("cpu", torch.bfloat16):
            hidden = model.model(input_ids=ids, attention_mask=(ids != 0).long(), use_cache=False).last_hidden_state
            keep = labels[:, 1:] != -100
            logits = model.lm_head(hidden[:, :-1][keep])
        loss = F.cross_entropy(logits.float(), labels[:, 1:][keep])
        loss.backward()
        assert table.grad is not None
        table.grad[untrained] = 0  # new words stay at their random start: AdamW without decay does not move them
        torch.nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        for optimizer, schedule in zip(optimizers, schedules, strict=True):
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
            schedule.step()
        bar.update()
        if step % 20 == 0:
            bar.set_postfix(loss=f"{loss.item():.3f}")
    bar.close()
    model.eval()


def pretrain(config: PretrainConfig, folder: str | Path, seeds: tuple[int, ...] = (1,)) -> Path:
    """Make a backbone per seed, measure each on the test splits, keep the first with its model card; return its folder.

    One thread, so that the same command on the same machine gives the same bytes.
    """
    folder = Path(folder)
    if folder.exists():
        raise ValueError(f"{folder} exists already; give another folder, or remove that one first")
    if not seeds:
        raise ValueError("no seeds given; give at least one")
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    measured = []
    try:
        with whole(folder) as temporary:
            for seed in seeds:
                started = time.process_time()
                tokenizer = make_tokenizer()
                model = make_model(replace(config, seed=seed), len(tokenizer))
                fit(model, tokenizer, replace(config, seed=seed))
                seconds = round(time.process_time() - started)
                measured.append({"seed": seed, "cpu_seconds": seconds, **measure(Backbone(model, tokenizer, "nano"))})
                if seed == seeds[0]:
                    model.save_pretrained(temporary)
                    tokenizer.save_pretrained(temporary)
            result = {
                "config": asdict(replace(config, seed=seeds[0])),
                "sha256": hashlib.sha256((temporary / "model.safetensors").read_bytes()).hexdigest(),
                "parameters": sum(p.numel() for p in AutoModelForCausalLM.from_pretrained(temporary).parameters()),
                "seeds": measured,
                **provenance(),
            }
            write_json(temporary / "pretrain.json", result)
            write_text(temporary / "README.md", model_card(result))
    finally:
        torch.set_num_threads(threads)
    return folder


def measure(backbone: Backbone, count: int = 1000) -> dict[str, Any]:
    """Accuracy (Wilson 95 %) on test splits: known words with and without steps, new words without and with help."""
    known, new = load_task("arith"), load_task("arith-shift")
    cot, direct = build("cot", backbone), build("direct", backbone)
    plans = [" ".join(p.operations) for p in arith.problems("test", arith.DIFFICULTIES["standard"], True)[:count]]

    def told(thoughts: list[Thoughts]) -> list[Thoughts]:
        """The operation plan as thoughts: the embeddings of its words."""
        vectors = [backbone.embed(backbone.ids(plan))[None, None] for plan in plans]
        return [Thoughts(v, torch.ones(v.shape[:-1], dtype=torch.bool)) for v in vectors]

    stores = {
        "known words, worked steps": collect(cot, known, known.examples("test", count)),
        "known words, direct answer": collect(direct, known, known.examples("test", count)),
        "new words, worked steps": collect(cot, new, new.examples("test", count)),
        "new words, worked steps, plan in the slot": collect(cot, new, new.examples("test", count), change=told),
    }
    return {name: asdict(accuracy(store)) for name, store in stores.items()}


def model_card(result: dict[str, Any]) -> str:
    """The README of the backbone's folder, from its measured numbers."""
    names = [name for name in result["seeds"][0] if name not in ("seed", "cpu_seconds")]
    lines = ["| " + " | ".join(["seed", *names, "CPU seconds"]) + " |", "|" + " --- |" * (len(names) + 2)]
    for row in result["seeds"]:
        cells = [f"{100 * row[n]['mean']:.1f} % [{100 * row[n]['low']:.1f}, {100 * row[n]['high']:.1f}]" for n in names]
        lines.append("| " + " | ".join([str(row["seed"]), *cells, str(row["cpu_seconds"])]) + " |")
    return CARD.format(
        parameters=f"{result['parameters']:,}",
        seeds=",".join(str(row["seed"]) for row in result["seeds"]),
        seed=result["config"]["seed"],
        sha256=result["sha256"],
        n=result["seeds"][0][names[0]]["n"],
        table="\n".join(lines),
        nonce=len(arith.NONCE_VERBS),
        shift=sum(map(len, arith.SHIFT_VERBS.values())),
        settings=json.dumps(result["config"]),
    )


CARD = """---
license: apache-2.0
pipeline_tag: text-generation
---
# nano: a tiny language model with a slot for thoughts

A Qwen3-shaped causal language model ({parameters} parameters, float32) with its own word tokenizer. It solves
word problems of one to three operations (`workbench.tasks.arith`) and reads hints between `<bot>` and `<eot>`. It is
made to study latent thoughts on a laptop and is good for nothing else.

    AutoModelForCausalLM.from_pretrained("data/backbones/nano")

**Made by** `workbench pretrain --seeds [{seeds}] --out FOLDER`, from nothing but generated problems; the weights here
are those of seed {seed}. sha256 of model.safetensors: `{sha256}`
(the same command gives the same bytes on the same kind of machine; other processors round differently).

**Accuracy**, greedy, {n} test problems each, 95 % Wilson intervals:

{table}

**Format.** `<bos> question <bot> hint <eot> think: steps #### answer <eos>`, or `#### answer` right after `<eot>`. The
slot is empty in most documents; else it holds an operation plan, a glossary of new words, or partial results. In
problems of known words about half of the hints are no true plan, so the model trusts words it knows more than the slot.

**New words.** Each of {nonce} words means + or - afresh in every document, and the embeddings of these and of the
shift domain's {shift} verbs never leave their random start: what a new word means is nowhere in the weights. Problems
with new words are composed so that the numbers allow every reading.

**Settings** (`pretrain.json` has versions and commit too): `{settings}`
"""
