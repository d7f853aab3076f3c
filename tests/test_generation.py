"""Answers are the same however they are written: prompts shared or copied, in batches or from a queue."""

import pytest
import torch
from conftest import random_model

from workbench.backbone import Backbone, attention, flight, pad, writing
from workbench.backbone.decoding import Decoding
from workbench.backbone.flight import _seats
from workbench.backbone.generation import generate
from workbench.experiments.pretrain import make_tokenizer

FAMILIES = ("qwen3", "llama", "gpt2")
LENGTHS = (5, 9, 1, 7, 90, 3, 12)
SETTINGS = [
    Decoding(15),
    Decoding(1),
    Decoding(66, repetition_penalty=1.4),  # longer than a block of the buffers
    Decoding(15, temperature=2.5),
    Decoding(1, temperature=1.0),
    Decoding(12, temperature=2.0, top_p=0.9, top_k=20, min_p=0.01, repetition_penalty=1.3),
]


class Restless(Backbone):
    """Many tokens end its answers, so that these are of many lengths."""

    @property
    def stops(self) -> frozenset[int]:
        return frozenset(range(0, len(self.table), 9))


def double(family: str) -> Backbone:
    """In float64: rounding decides no token."""
    tokenizer = make_tokenizer()
    return Restless(random_model(family, len(tokenizer), tokenizer.eos_token_id).double(), tokenizer, family)


def prompts(backbone: Backbone, lengths: tuple[int, ...] = LENGTHS) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    return [backbone.embed(torch.randint(6, len(backbone.table), (n,), generator=generator)) for n in lengths]


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request) -> Backbone:
    return double(request.param)


@pytest.mark.slow
@pytest.mark.parametrize("decoding", SETTINGS, ids=str)
def test_shared_prompts_and_a_queue_write_what_the_plain_way_writes(backbone, decoding):
    rows, seeds = prompts(backbone), list(range(len(LENGTHS)))
    for draws, sizes in ((1, (3,)), (3, (None, 1, 2))):
        plain = generate(backbone, rows, decoding, draws=draws, seeds=seeds, plain=True)
        for size in sizes:
            assert generate(backbone, rows, decoding, draws=draws, seeds=seeds, batch_size=size) == plain, size


@pytest.mark.parametrize("lengths", [LENGTHS, (4, 4, 4)], ids=["ragged", "even"])
def test_what_all_prompts_begin_with_is_read_once(backbone, monkeypatch, lengths):
    """An instruction before every question: the answers are the plain way's, and its positions are read for one row."""
    start, read = prompts(backbone, (20,))[0], []
    rows, seeds = [torch.cat([start, row]) for row in prompts(backbone, lengths)], list(range(len(lengths)))
    plain = [generate(backbone, rows, decoding, draws=2, seeds=seeds, plain=True) for decoding in SETTINGS[2:4]]
    run = Backbone.run
    monkeypatch.setattr(Backbone, "run", lambda self, x, *a, **k: (read.append(x.shape[:2]), run(self, x, *a, **k))[1])
    for decoding, expected in zip(SETTINGS[2:4], plain, strict=True):
        read.clear()
        assert generate(backbone, rows, decoding, draws=2, seeds=seeds, batch_size=3) == expected
        assert read[0] == (1, 20)
        assert max(width for count, width in read[1:]) == max(lengths)
        assert sum(count for count, _ in read[1:]) == len(rows)


def test_what_is_hardly_common_or_all_of_a_prompt_is_read_as_ever(backbone):
    start = prompts(backbone, (20,))[0]
    tails = prompts(backbone, (3, 5))
    assert flight._common([torch.cat([start, tail]) for tail in tails]) == 20
    assert flight._common([torch.cat([start[:7], tail]) for tail in tails]) == 0  # fewer than BEGUN
    assert flight._common([start, start]) == 19  # of each something is left to read
    assert flight._common([start]) == 0
    assert flight._common([start, start[:1]]) == 0


def test_the_cases_above_are_not_all_alike(backbone):
    """Answers of many lengths, some of them none or cut off: rows do leave at different times."""
    found = generate(backbone, prompts(backbone), SETTINGS[3], draws=3, seeds=list(range(len(LENGTHS))))
    lengths = {len(answer.tokens) for row in found for answer in row}
    assert len(lengths) > 3
    assert {answer.finished for row in found for answer in row} == {True, False}


@pytest.mark.parametrize("look", [2, 7])
def test_looking_rarely_which_rows_have_ended_changes_nothing(backbone, monkeypatch, look):
    rows, seeds = prompts(backbone), list(range(len(LENGTHS)))
    plain = [generate(backbone, rows, decoding, draws=2, seeds=seeds, plain=True) for decoding in SETTINGS[:4]]
    monkeypatch.setattr(flight, "LOOK", {"cpu": look})
    for decoding, expected in zip(SETTINGS, plain, strict=False):
        assert generate(backbone, rows, decoding, draws=2, seeds=seeds, batch_size=3) == expected


def test_the_fast_way_is_taken_where_it_can_be(backbone, monkeypatch):
    """Prompts are kept once for all draws, and a model with another attention is left its own."""
    called = []
    enter = attention.SharedPrompts.enter
    monkeypatch.setattr(
        attention.SharedPrompts,
        "enter",
        lambda self, read, *rest: (called.append(read.layers[0].keys.shape[0]), enter(self, read, *rest))[1],
    )
    rows = prompts(backbone, (6, 6, 6))
    first = generate(backbone, rows, Decoding(3), draws=4)
    assert called == [len(rows)]
    kernel = backbone.model.config._attn_implementation
    try:
        backbone.model.config._attn_implementation = "eager"
        assert generate(backbone, rows, Decoding(3), draws=4) == first
        assert called == [len(rows)]
    finally:
        backbone.model.config._attn_implementation = kernel


def test_a_model_attends_as_before_when_writing_is_over_or_fails(backbone, monkeypatch):
    kernel = backbone.model.config._attn_implementation
    generate(backbone, prompts(backbone), Decoding(3))
    assert backbone.model.config._attn_implementation == kernel
    monkeypatch.setattr(writing, "pick", lambda *_: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        generate(backbone, prompts(backbone), Decoding(3))
    assert backbone.model.config._attn_implementation == kernel


def test_gradients_flow_after_writing(backbone):
    """Nothing that writing leaves behind is unfit for training."""
    rows = prompts(backbone)
    generate(backbone, rows, Decoding(3))
    vectors = rows[0][None].clone().requires_grad_()
    backbone.run(vectors, torch.ones(vectors.shape[:2], dtype=torch.bool)).hidden.sum().backward()
    assert vectors.grad is not None
    assert vectors.grad.abs().sum() > 0


def test_the_method_of_a_backbone_writes_the_same(backbone):
    rows = prompts(backbone)
    assert backbone.generate(rows, SETTINGS[0], batch_size=2) == generate(backbone, rows, SETTINGS[0])
    assert backbone.generate(rows, SETTINGS[0], plain=True) == generate(backbone, rows, SETTINGS[0])
    assert generate(backbone, [], Decoding(3)) == []


def test_a_batch_size_is_at_least_one(backbone):
    with pytest.raises(ValueError, match="batch_size=0: it must be at least 1"):
        generate(backbone, prompts(backbone), Decoding(3), batch_size=0)


@pytest.mark.parametrize(
    ("count", "free", "coming"),
    [(0, [], 3), (5, [1, 3], 0), (5, [1, 3], 1), (5, [1, 3], 2), (5, [4], 4), (4, [0, 1, 2, 3], 1)],
)
def test_seats_leave_no_gap(count, free, coming):
    seats = _seats(count, free, coming)
    there = [None if k in free else k for k in range(count)] + [None] * coming
    for k in seats.taken:
        assert there[k] is None  # nobody is displaced
        there[k] = "new"
    for source, target in zip(seats.source, seats.target, strict=True):
        assert there[target] is None
        there[target], there[source] = there[source], None
    assert None not in there[: seats.total]
    assert all(place is None for place in there[seats.total :])
    assert seats.total == count - len(free) + coming


def test_attention_is_that_over_the_whole_row(backbone):
    """Of one step, against the model's own attention to prompt and own tokens in one row."""
    rows = prompts(backbone, (6, 11))
    cache, lengths = attention.SharedPrompts(), [6, 11]
    embeds, mask = pad(rows, "left")
    cache.enter(backbone.run(embeds, mask).cache, [0, 1], lengths)
    words = prompts(backbone, (1, 1, 1))
    slots = [0, 1, 1]
    cache.arrange(slots, [1, 1, 1])
    with torch.no_grad(), attention.attending(backbone.model, attention.NAME, attention.attend):
        found = backbone.model(
            inputs_embeds=torch.stack(words), position_ids=torch.tensor([[lengths[s]] for s in slots]),
            use_cache=True, logits_to_keep=1, shared=cache, **{attention.cache_name(type(backbone.model)): cache},
        ).logits[:, -1]  # fmt: skip
    for word, slot, logits in zip(words, slots, found, strict=True):
        expected = backbone.model(inputs_embeds=torch.cat([rows[slot], word])[None]).logits[0, -1]
        torch.testing.assert_close(logits, expected, atol=1e-9, rtol=1e-9)
