"""Which language models and tokenizers are taken, and what is said of the others."""

import warnings

import pytest
import torch
from families import FAMILIES, make_tokenizer
from transformers import AutoConfig, AutoModelForCausalLM, T5Config

import workbench as wb
from workbench.attention import shareable
from workbench.backbone import Backbone, Decoding
from workbench.likelihood import mean_losses
from workbench.methods.base import prepared
from workbench.methods.loops import Made, unroll
from workbench.tasks import Example, Task

SHAPE = {
    "hidden_size": 32, "intermediate_size": 48, "num_hidden_layers": 2, "num_attention_heads": 4,
    "num_key_value_heads": 2, "max_position_embeddings": 256, "initializer_range": 0.2,
}  # fmt: skip
OPT = {
    "hidden_size": 32, "ffn_dim": 48, "num_hidden_layers": 2, "num_attention_heads": 4, "word_embed_proj_dim": 32,
    "max_position_embeddings": 256, "init_std": 0.2,
}  # fmt: skip
GPT2 = {"n_embd": 32, "n_layer": 2, "n_head": 4, "n_positions": 256, "initializer_range": 0.2}
GEMMA = SHAPE | {"head_dim": 8}
KINDS = {
    "llama": SHAPE,
    "opt": OPT,
    "gpt2": GPT2,
    "gemma": GEMMA,
    "gemma2": GEMMA | {"query_pre_attn_scalar": 8, "sliding_window": 6},
    "mistral": SHAPE | {"sliding_window": 6},
    "granite": SHAPE | {"embedding_multiplier": 12.0, "logits_scaling": 8.0},
    "mpt": {"d_model": 32, "n_layers": 2, "n_heads": 4, "max_seq_len": 64, "initializer_range": 0.2},
    "bloom": {"hidden_size": 32, "n_layer": 2, "n_head": 4, "initializer_range": 0.2},
}


def made(kind: str, rows: int = 0, **config) -> tuple:
    tokenizer = make_tokenizer(FAMILIES["plain"])
    with torch.random.fork_rng():
        torch.manual_seed(0)
        described = AutoConfig.for_model(kind, vocab_size=len(tokenizer) + rows, pad_token_id=None, **config)
        return AutoModelForCausalLM.from_config(described).float().eval(), tokenizer


def asked(*questions: str) -> tuple[Task, list[Example]]:
    examples = [Example(f"q{k}", text, ("12 + 5 = 17",), "17") for k, text in enumerate(questions)]
    return Task("apples", lambda split: examples, lambda text: text, lambda a, b: a == b, answer_tokens=8), examples


@pytest.mark.parametrize("kind", KINDS)
def test_losses_thoughts_and_logits_are_the_models_own(kind):
    """Rows longer than sliding windows, padded, behind prefixes: as the model's own forward pass on ids says."""
    backbone = Backbone(*made(kind, **KINDS[kind]), kind)
    chance = torch.Generator().manual_seed(0)
    prefixes, texts = ([torch.randint(9, 300, (n,), generator=chance) for n in sizes] for sizes in ((3, 12), (9, 4)))
    labels = [torch.cat([text[1:], text[:1]]) for text in texts]
    rows, there = [backbone.embed(text) for text in texts], [torch.ones(len(text), dtype=torch.bool) for text in texts]
    found = mean_losses(backbone, prefixes, rows, there, labels)
    for prefix, text, label, loss in zip(prefixes, texts, labels, found, strict=True):
        logits = backbone.model(input_ids=torch.cat([prefix, text])[None], use_cache=False).logits[0, len(prefix) :]
        torch.testing.assert_close(loss, torch.nn.functional.cross_entropy(logits, label), rtol=1e-4, atol=1e-4)
    out = backbone.run(rows[0][None], there[0][None], logits_at=torch.tensor([8]), hidden=True)
    states = backbone.run(rows[0][None], there[0][None]).hidden
    torch.testing.assert_close(out.hidden, states)
    assert shareable(backbone.model) == (kind not in ("gemma2", "mistral", "bloom", "mpt"))


def test_rows_with_gaps_are_read_alike_in_a_window_that_slides():
    """A thought that is not there moves nothing out of sight."""
    backbone = Backbone(*made("mistral", **KINDS["mistral"]), "m")
    text, prefix = torch.arange(20, 30), torch.arange(40, 44)
    own = backbone.embed(text)
    gaps = torch.cat([own[:2], torch.ones(5, 32), own[2:]])
    there = torch.ones(15, dtype=torch.bool)
    there[2:7] = False
    one = mean_losses(backbone, [prefix], [own], [torch.ones(10, dtype=torch.bool)], [text[5:]])
    other = mean_losses(backbone, [prefix], [gaps], [there], [text[5:]])
    torch.testing.assert_close(one, other)
    reads = torch.ones(1, 1, 10, 10, dtype=torch.bool).tril()
    with pytest.raises(ValueError, match="do not go with the sliding window"):
        backbone.run(own[None], reads, positions=torch.arange(10)[None])


@pytest.mark.parametrize(
    ("kind", "config", "why"),
    [
        ("mamba", {"hidden_size": 32, "num_hidden_layers": 2, "state_size": 8}, "recurrent or convolutional state"),
        ("lfm2", SHAPE | {"full_attn_idxs": [1]}, "recurrent or convolutional state"),
        ("rwkv", {"hidden_size": 32, "attention_hidden_size": 32, "num_hidden_layers": 2}, "cannot be used here"),
        ("bert", SHAPE, "cannot be used here"),
    ],
)
def test_what_does_not_only_attend_to_what_came_before_is_refused(kind, config, why):
    with pytest.raises(ValueError, match=why):
        Backbone(*made(kind, **config), kind)


def test_encoders_with_decoders_are_refused_by_their_config(tmp_path):
    T5Config().save_pretrained(tmp_path)
    with pytest.raises(ValueError, match=r"\(t5\) is no causal language model that transformers knows"):
        Backbone.load(str(tmp_path))


def test_embeddings_that_only_tokens_get_are_refused():
    """A model that scales in its forward pass where ids come in, and not where vectors do."""
    model, tokenizer = made("llama", **SHAPE)
    forward = model.model.forward
    model.model.forward = lambda input_ids=None, inputs_embeds=None, **rest: forward(
        inputs_embeds=model.model.embed_tokens(input_ids) * 5 if inputs_embeds is None else inputs_embeds, **rest
    )
    with pytest.raises(ValueError, match="reads vectors otherwise than the tokens"):
        Backbone(model, tokenizer, "scaled")


def test_a_softcap_that_no_config_names_is_seen():
    """Then the model's own logits are taken."""
    model, tokenizer = made("llama", **SHAPE)
    kept = model.forward

    def capped(*args, **kwargs):
        out = kept(*args, **kwargs)
        out.logits = 3 * torch.tanh(out.logits / 3)
        return out

    assert Backbone(model, tokenizer, "plain").plain_logits
    model.forward = capped
    assert not Backbone(model, tokenizer, "capped").plain_logits


@pytest.mark.parametrize("kind", ["llama", "gemma", "gemma2", "granite"])
def test_thoughts_are_as_large_as_what_the_model_reads(kind):
    backbone, (task, examples) = Backbone(*made(kind, **KINDS[kind]), kind), asked("12 apples?")
    words = backbone.embed(torch.arange(len(backbone.table)))
    scale = words.square().mean().sqrt()
    torch.testing.assert_close(backbone.input_scale, scale)
    torch.testing.assert_close(backbone.inputs(), words)
    method = wb.build("lta-thinker", backbone)
    thoughts = method.think([method.render(examples[0], task)]).vectors
    assert 0.9 < thoughts.square().mean().sqrt() / scale < 1.1
    for vector in wb.build("soft-prompt", backbone).vectors:
        assert (words == vector).all(1).any()
    store = wb.collect(method, task, examples, decoding=Decoding(max_new_tokens=1))
    rows = torch.linspace(0, len(words) - 1, store.sizes["reference"]).long()
    torch.testing.assert_close(torch.from_numpy(store["reference"].values).float(), words[rows], rtol=1e-3, atol=1e-3)


def test_the_tokenizer_may_not_have_more_tokens_than_there_are_rows():
    model, tokenizer = made("llama", **SHAPE)
    tokenizer.add_tokens(["<plum>"])
    with pytest.raises(ValueError, match=r"tokens up to id \d+ \(such as '<plum>'\), its embedding table only"):
        Backbone(model, tokenizer, "short")
    Backbone(*made("llama", rows=5, **SHAPE), "long")


LONG = "Tom has 12 apples and buys 5 more apples. " * 9


@pytest.mark.parametrize("kind", ["gpt2", "opt"])
def test_learned_positions_end(kind):
    """A longer text is one sentence before anything runs; an answer is cut there, unfinished, whatever is beside it."""
    size = {"n_positions": 40} if kind == "gpt2" else {"max_position_embeddings": 40}
    backbone, (task, examples) = Backbone(*made(kind, **KINDS[kind] | size), kind), asked("12 apples?", LONG)
    method = wb.build("soft-prompt", backbone)
    assert (backbone.window, backbone.bounded) == (40, True)
    for learned in (False, True):
        with pytest.raises(ValueError, match=r"too long for backbone .*, whose window is 40; give shorter"):
            prepared(method, task, examples, learned)
    chance = torch.Generator().manual_seed(0)
    rows = [backbone.embed(torch.randint(9, 300, (n,), generator=chance)) for n in (38, 5, 40, 30)]
    whole = backbone.generate(rows, Decoding(max_new_tokens=99), draws=2, batch_size=3)
    plain = backbone.generate(rows, Decoding(max_new_tokens=99), draws=2, batch_size=3, plain=True)
    assert [[one.tokens for one in some] for some in whole] == [[one.tokens for one in some] for some in plain]
    for row, answers in zip(rows, whole, strict=True):
        for one in answers:
            assert one.finished or len(row) + len(one.tokens) == 41  # the last token need not be read
    assert not all(one.finished for some in whole for one in some)
    with pytest.raises(ValueError, match="whose window is 40"):
        backbone.generate([rows[0].repeat(2, 1)], Decoding(max_new_tokens=9))
    prompt = method.render(examples[0], task)
    with pytest.raises(ValueError, match="whose window is 40"):
        unroll(backbone, [prompt], lambda state: Made(state.hidden), 60)


def test_rotary_positions_beyond_the_window_are_said():
    backbone, (task, examples) = Backbone(*made("llama", **SHAPE | {"max_position_embeddings": 40}), "l"), asked(LONG)
    assert (backbone.window, backbone.bounded) == (40, False)
    method = wb.build("soft-prompt", backbone)
    prompt = method.render(examples[0], task)
    short = method.render(asked("12?")[1][0], task)
    acts = (
        lambda: prepared(method, task, examples),
        lambda: method.loss([prompt]),
        lambda: unroll(backbone, [short], lambda state: Made(state.hidden), 60),
        lambda: backbone.generate([backbone.embed(short.before[:1]).repeat(39, 1)], Decoding(max_new_tokens=30)),
    )
    for act in acts:
        with pytest.warns(UserWarning, match="rows are longer than the window of backbone 'l', 40 positions"):
            act()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        method.loss([short])


def test_unknown_words_are_said(tiny):
    """The shipped kind of tokenizer knows its own words only."""
    backbone = tiny()
    task, examples = asked("zebras gallop over moonlit hills", "2 + 3")
    with pytest.warns(UserWarning, match=r"\d\d% of the tokens in the questions of task 'apples' are unknown"):
        prepared(wb.build("cot", backbone), task, examples)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        known = wb.load_task("arith")
        prepared(wb.build("cot", backbone), known, known.examples("dev", 4))
