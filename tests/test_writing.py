"""The one loop for words and thoughts: fast and plain agree, rows are their own, thoughts are where they were made."""

from collections.abc import Sequence
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from test_generation import FAMILIES, LENGTHS, double, prompts
from torch import Tensor

from workbench.backbone import Backbone
from workbench.decoding import Decoding, pick
from workbench.generation import generate
from workbench.thoughts import Made, State, Step, Thoughts, joined
from workbench.writing import words, write

MARKS = range(4, 400, 3)  # words that are thoughts here


@pytest.fixture(scope="module", params=FAMILIES)
def backbone(request) -> Backbone:
    return double(request.param)


def thinking(backbone: Backbone, decoding: Decoding) -> Step:
    """Some words are not written: a vector of the state before and of the last block's input stands there instead."""
    marks = torch.tensor([m for m in MARKS if m < len(backbone.table)])

    def step(state: State) -> Made:
        assert state.written is not None
        word = pick(state.logits, decoding, state.chance, state.written)
        vector = 0.5 * state.hidden + 0.1 * state.layers[-2] + backbone.table[word]
        thinks = torch.isin(word, marks) & (word % 9 != 0)  # multiples of 9 end these answers
        peak = state.logits.amax(-1)
        mixture = (word[:, None], torch.ones_like(peak)[:, None])
        return Made(vector, word, {"peak": peak}, mixture, words=word.masked_fill(thinks, -1))

    return step


def same(one: Thoughts, other: Thoughts) -> None:
    torch.testing.assert_close(one.vectors, other.vectors, atol=1e-8, rtol=1e-8)
    torch.testing.assert_close(one.signals, other.signals, atol=1e-5, rtol=1e-5)
    assert one.places is not None
    assert other.places is not None
    assert torch.equal(one.places, other.places)
    assert one.tokens is not None
    assert other.tokens is not None
    assert torch.equal(one.tokens, other.tokens)


@pytest.mark.parametrize(
    "decoding", [Decoding(12), Decoding(14, temperature=2.5, repetition_penalty=1.2)], ids=["greedy", "sampled"]
)
def test_thoughts_between_words_are_the_same_over_shared_prompts_and_plainly(backbone, decoding):
    rows, seeds, step = prompts(backbone), list(range(len(LENGTHS))), thinking(backbone, decoding)
    given: dict[str, Any] = {"step": step, "layers": (-2,), "draws": 3}
    plain = generate(backbone, rows, decoding, seeds=seeds, plain=True, **given)
    counts = [len(a.thoughts.places[0, 0]) for row in plain for a in row]
    assert len(set(counts)) > 2
    assert len({len(a.tokens) for row in plain for a in row}) > 2
    for size in (None, 2):
        found = generate(backbone, rows, decoding, seeds=seeds, batch_size=size, **given)
        assert found == plain
        for row, other in zip(found, plain, strict=True):
            for answer, twin in zip(row, other, strict=True):
                same(answer.thoughts, twin.thoughts)


def test_an_answer_with_thoughts_is_what_one_pass_over_its_inputs_gives(backbone):
    """Replayed: words' embeddings and thoughts in one row, in their order, predict each word and give each thought."""
    decoding, rows = Decoding(10), prompts(backbone, (5, 8))
    answers = generate(backbone, rows, decoding, step=thinking(backbone, decoding), layers=(-2,))
    for row, (answer,) in zip(rows, answers, strict=True):
        thoughts = answer.thoughts
        assert thoughts is not None
        places = thoughts.places[0, 0].tolist()
        inputs, order, left = [row], [], list(answer.tokens)
        for k in range(len(left) + 1):
            for number in (n for n, place in enumerate(places) if place == k):
                inputs.append(thoughts.vectors[0, 0, number : number + 1])
                order.append(("thought", number))
            if k < len(left):
                inputs.append(backbone.embed(torch.tensor(left[k : k + 1])))
                order.append(("word", left[k]))
        whole = torch.cat(inputs)
        out = backbone.model(inputs_embeds=whole[None], output_hidden_states=True)
        for at, (kind, what) in enumerate(order, len(row) - 1):
            token = int(out.logits[0, at].argmax())
            if kind == "word":
                assert token == what
                continue
            expected = 0.5 * out.hidden_states[-1][0, at] + 0.1 * out.hidden_states[-2][0, at] + backbone.table[token]
            torch.testing.assert_close(thoughts.vectors[0, 0, what], expected, atol=1e-8, rtol=1e-8)


def test_a_step_is_told_which_row_it_makes_an_input_for(backbone):
    """Prompt, copy, counts and random number, however rows are seated; rows that have ended are not asked again."""
    rows, told = prompts(backbone, (3, 5, 4)), {}

    def step(state: State) -> Made:
        assert state.count is not None
        assert state.chance is not None
        thinks = (state.rows + state.count) % 2 == 0
        for values in zip(
            state.rows.tolist(), state.prompts.tolist(), state.count.tolist(), state.number.tolist(),
            state.words.tolist(), state.chance.tolist(), strict=True,
        ):  # fmt: skip
            row, prompt, count, number, written, chance = values
            assert (row, count) not in told
            told[row, count] = (prompt, number, written, chance)
        ends = state.count == 2 + state.rows
        return Made(state.hidden, words=torch.where(thinks, -1, 7), ends=ends)

    with torch.no_grad():
        fast = write(backbone, rows, step, 6, copies=2, seeds=[5, 6, 7], batch_size=2)
    first, told = told, {}
    assert [len(one) for one in fast.words] == [1, 1, 2, 2, 3, 3]
    assert fast.ended == [True, True, True, True, False, False]
    plain = write(backbone, rows, step, 6, copies=2, seeds=[5, 6, 7], plain=True)
    assert told == first
    assert (plain.words, plain.ended) == (fast.words, fast.ended)
    assert {prompt for (row, _), (prompt, *_) in told.items() if row in (2, 3)} == {1}
    assert len({chance for *_, chance in told.values()}) == len(told)


def test_chains_of_thoughts_take_the_fast_way_without_gradients_and_are_the_same(backbone):
    def step(state: State) -> Made:
        return Made(state.hidden + 0.1 * state.rows[:, None], ends=state.number >= 1 + state.rows % 4)

    rows = prompts(backbone, (4, 9, 6))
    plain = write(backbone, rows, step, 3, copies=2, plain=True).thoughts(3, rows[0])
    with torch.no_grad():
        fast = write(backbone, rows, step, 3, copies=2, batch_size=2).thoughts(3, rows[0])
    assert plain.mask.sum(2).tolist() == [[1, 2], [3, 3], [1, 2]]
    assert torch.equal(plain.mask, fast.mask)
    torch.testing.assert_close(plain.vectors, fast.vectors, atol=1e-8, rtol=1e-8)
    assert not fast.vectors.is_inference()  # fit for whatever comes


@pytest.mark.parametrize("index", [-1, -2, -3, 0, 1])
def test_states_of_any_layer_are_those_that_transformers_gives(backbone, index):
    embeds = torch.stack(prompts(backbone, (5, 5)))
    out = backbone.run(
        embeds, torch.ones(2, 5, dtype=torch.bool), layers=(index,), hidden=True, logits_at=torch.tensor([4])
    )
    expected = backbone.model(inputs_embeds=embeds, output_hidden_states=True).hidden_states
    found = out.hidden if index == -1 else out.layers[index]
    torch.testing.assert_close(found, expected[index], atol=1e-9, rtol=1e-9)
    with pytest.raises(ValueError, match=r"no states of index 2 in .* with 2 blocks; give -1"):
        backbone.run(embeds, mask, layers=(2,))


# ------------------------------------------------------------------------------------ a model that reads more than rows


class Counts:
    """A cache: how many inputs of a row there were, and what belongs to the row."""

    def __init__(self, own: Tensor):
        self.own, self.sum = own, torch.zeros_like(own)

    def batch_repeat_interleave(self, times: int) -> None:
        self.own, self.sum = (value.repeat_interleave(times, 0) for value in (self.own, self.sum))

    def batch_select_indices(self, rows: Tensor) -> None:
        self.own, self.sum = self.own[rows], self.sum[rows]


class Reads:
    """No transformer: the next word is the sum of all inputs so far and of a number that each prompt has beside it."""

    model, trains, stops, device = None, False, frozenset({0}), torch.device("cpu")

    def __init__(self, own: Sequence[float]):
        self.own = torch.tensor(own)

    def embed(self, ids: Tensor) -> Tensor:
        return ids[..., None].float()

    def cache_for(self, prompts: Sequence[int]) -> Counts:
        return Counts(self.own[list(prompts)])

    def run(self, embeds, mask, *, cache=None, logits_at=None, hidden=False, layers=()):
        cache.sum = cache.sum + (embeds[..., 0] * mask[:, -embeds.shape[1] :]).sum(1)
        word = (cache.sum + cache.own).long() % 10
        logits = torch.nn.functional.one_hot(word, 10).float()[:, None]
        return SimpleNamespace(hidden=cache.sum[:, None, None], logits=logits, cache=cache, layers={})


def test_a_model_of_another_kind_writes_with_what_belongs_to_each_prompt():
    reads, rows = Reads([1, 5, 2]), [torch.tensor([[3.0]]), torch.tensor([[2.0], [1.0]]), torch.tensor([[1.0]])]
    for size in (None, 2, 1):
        found = write(reads, rows, words(Decoding(5)), 5, copies=2, batch_size=size)
        assert found.words == [[4, 8, 6, 2, 4]] * 2 + [[8, 6, 2, 4, 8]] * 2 + [[3, 6, 2, 4, 8]] * 2


# --------------------------------------------------------------------------------------------------------------- joined


def test_thoughts_before_and_within_answers_are_one_row_per_path():
    mask = torch.tensor([[[True, True], [True, False]]])
    before = Thoughts(torch.arange(4.0).view(1, 2, 2, 1), mask, signals={"early": torch.ones(1, 2, 2)})

    def within(*places: int) -> Thoughts:
        vectors = 10.0 + torch.tensor(places).float().view(1, 1, -1, 1)
        own = torch.tensor(places, dtype=torch.long).view(1, 1, -1)
        return Thoughts(vectors, own >= 0, own, {"late": 2.0 * own}, places=own)

    found = joined(before, [[within(3), within()], [None, within(0, 5)]])
    assert found.vectors[0, :, :, 0].tolist() == [[0, 1, 13], [2, 10, 15]]
    assert found.mask.all()
    assert found.draws is not None
    assert found.draws.tolist() == [[[-1, -1, 0], [-1, 1, 1]]]
    assert found.places is not None
    assert found.places.tolist() == [[[0, 0, 3], [0, 0, 5]]]
    assert found.tokens is not None
    assert found.tokens.tolist() == [[[-1, -1, 3], [-1, 0, 5]]]
    assert found.signals["early"].isnan().tolist() == [[[False, False, True], [False, True, True]]]
    assert found.signals["late"].nan_to_num(-7).tolist() == [[[-7, -7, 6], [-7, 0, 10]]]
    assert joined(before, [[None], [None]]) is before
    none = Thoughts(torch.zeros(1, 1, 0, 1), torch.zeros(1, 1, 0, dtype=torch.bool))
    assert joined(none, [[within(2)]]).vectors.flatten().tolist() == [12]
