"""How the next token is chosen: against the rules restated row by row, and against transformers' own processors."""

from dataclasses import replace

import pytest
import torch
from families import family
from transformers import GenerationConfig
from transformers.generation.logits_process import (
    LogitsProcessorList,
    MinPLogitsWarper,
    RepetitionPenaltyLogitsProcessor,
    TemperatureLogitsWarper,
    TopKLogitsWarper,
    TopPLogitsWarper,
)

from workbench.backbone.decoding import Decoding, likeliest, own, pick

VOCABULARY = 40
NOTHING = torch.zeros(1, 0, dtype=torch.long)
SETTINGS = [
    Decoding(temperature=1.0),
    Decoding(temperature=0.5, top_k=1),
    Decoding(temperature=0.5, top_k=10),
    Decoding(temperature=1.0, top_k=1000),
    Decoding(temperature=1.0, min_p=0.3),
    Decoding(temperature=1.0, min_p=1.0),
    Decoding(temperature=1.3, top_p=0.6),
    Decoding(temperature=0.7, top_p=0.8, top_k=20),
    Decoding(temperature=3.0, top_p=0.6, top_k=8),  # a share of what the eight have, not of everything
    Decoding(temperature=0.7, top_p=0.5, top_k=5, min_p=0.05),
    Decoding(temperature=0.9, repetition_penalty=1.5),
    Decoding(temperature=0.9, repetition_penalty=0.7),
    Decoding(temperature=0.7, top_p=0.8, top_k=20, min_p=0.02, repetition_penalty=1.2),
]


def name(decoding: Decoding) -> str:
    default = vars(Decoding())
    return ", ".join(f"{key}={value}" for key, value in vars(decoding).items() if value != default[key])


def rows(count: int, seed: int = 0) -> tuple[torch.Tensor, torch.Tensor]:
    """Logits, and the tokens so far: some of them the likeliest, some twice."""
    generator = torch.Generator().manual_seed(seed)
    logits = 3 * torch.randn(count, VOCABULARY, generator=generator)
    written = torch.randint(0, VOCABULARY, (count, 6), generator=generator)
    return logits, torch.cat([written, logits.topk(2).indices, written[:, :1]], 1)


def distribution(logits: list[float], decoding: Decoding, written: list[int]) -> dict[int, float]:
    """One row's chances in plain Python, one rule after the other."""
    logits = list(logits)
    for token in set(written):
        penalty = decoding.repetition_penalty
        logits[token] = logits[token] * penalty if logits[token] < 0 else logits[token] / penalty
    weights = [2.718281828459045 ** (logit / decoding.temperature) for logit in logits]
    ranked = sorted(((weight / sum(weights), token) for token, weight in enumerate(weights)), reverse=True)
    ranked = ranked[: decoding.top_k]
    total, kept, mass = sum(chance for chance, _ in ranked), [], 0.0
    for chance, token in ranked:
        if mass / total < decoding.top_p and chance >= decoding.min_p * ranked[0][0]:
            kept.append((chance, token))
        mass += chance
    total = sum(chance for chance, _ in kept)
    return {token: chance / total for chance, token in kept}


def drawn(logits: torch.Tensor, decoding: Decoding, written: torch.Tensor, grid: int = 4000) -> dict[int, float]:
    """One row's chances as `pick` has them: how often each token comes over an even grid of random numbers."""
    chance = (torch.arange(grid) + 0.5) / grid
    found = pick(logits.expand(grid, -1), decoding, chance, written.expand(grid, -1))
    return {token: count / grid for token, count in enumerate(torch.bincount(found).tolist()) if count}


@pytest.mark.parametrize("decoding", SETTINGS, ids=name)
def test_chances_are_those_of_the_rules(decoding):
    logits, written = rows(4)
    for row, said in zip(logits, written, strict=True):
        expected = distribution(row.tolist(), decoding, said.tolist())
        found = drawn(row[None], decoding, said[None])
        assert set(found) <= set(expected)
        for token, chance in expected.items():
            assert found.get(token, 0) == pytest.approx(chance, abs=2 / 4000)


@pytest.mark.parametrize("decoding", SETTINGS, ids=name)
def test_chances_are_those_of_transformers(decoding):
    logits, written = rows(4, seed=1)
    steps = LogitsProcessorList([RepetitionPenaltyLogitsProcessor(decoding.repetition_penalty)])
    steps.append(TemperatureLogitsWarper(decoding.temperature))
    if decoding.top_k:
        steps.append(TopKLogitsWarper(decoding.top_k))
    steps.append(TopPLogitsWarper(decoding.top_p))
    steps.append(MinPLogitsWarper(decoding.min_p))
    expected = steps(written, logits.clone()).softmax(-1)
    for row, said, chances in zip(logits, written, expected, strict=True):
        found = drawn(row[None], decoding, said[None])
        for token, chance in enumerate(chances.tolist()):
            assert found.get(token, 0) == pytest.approx(chance, abs=2 / 4000)
            assert chance > 0 or token not in found


@pytest.mark.parametrize("decoding", [*SETTINGS, Decoding(repetition_penalty=1.4)], ids=name)
def test_a_row_does_not_depend_on_its_batch(decoding):
    logits, written = rows(30, seed=2)
    chance = torch.rand(30, generator=torch.Generator().manual_seed(0)) if decoding.temperature else None
    together = pick(logits, decoding, chance, written)
    for row in range(30):
        one = slice(row, row + 1)
        alone = pick(logits[one], decoding, None if chance is None else chance[one], written[one])
        assert alone.tolist() == together[one].tolist()


def test_of_equally_likely_tokens_top_k_keeps_the_first():
    chance = torch.linspace(0, 1, 50)
    logits = torch.zeros(50, 5)
    assert set(pick(logits, Decoding(temperature=1.0, top_k=2), chance, NOTHING.expand(50, 0)).tolist()) == {0, 1}


@pytest.mark.parametrize("top_k", [1, 3, 20, 39, 40, 1000, None])
def test_the_likeliest_are_the_beginning_of_the_whole_order(top_k):
    """Many tie here, as logits in bfloat16 do: of these the lower ids come first, at the limit too."""
    p = torch.randn(50, VOCABULARY, generator=torch.Generator().manual_seed(3)).round().softmax(-1)
    p[0] = torch.tensor([1.0] + [0.0] * (VOCABULARY - 1))
    assert len(p[1].unique()) < 10
    values, order = p.sort(descending=True, stable=True)
    falling, tokens = likeliest(p, Decoding(temperature=1.0, top_k=top_k))
    assert tokens.tolist() == order[:, :top_k].tolist()
    assert falling.tolist() == values[:, :top_k].tolist()


def test_with_top_k_the_vocabulary_is_not_sorted(monkeypatch):
    logits, written = rows(2)
    expected = pick(logits, Decoding(temperature=1.0, top_k=5), torch.tensor([0.1, 0.9]), written)
    monkeypatch.setattr(torch.Tensor, "sort", lambda *_, **__: 1 / 0)
    found = pick(logits, Decoding(temperature=1.0, top_k=5), torch.tensor([0.1, 0.9]), written)
    assert found.tolist() == expected.tolist()
    with pytest.raises(ZeroDivisionError):
        pick(logits, Decoding(temperature=1.0, top_p=0.9), torch.tensor([0.1, 0.9]), written)


@pytest.mark.parametrize("last", [0.0, -torch.inf], ids=["possible", "impossible"])
def test_without_a_cut_nothing_is_sorted_and_nothing_impossible_is_said(monkeypatch, last):
    monkeypatch.setattr(torch.Tensor, "sort", lambda *_, **__: 1 / 0)
    logits = torch.tensor([[-torch.inf, 0.0, 2.0, -torch.inf, last]]).expand(5, -1)
    ends = torch.tensor([0.0, 1e-38, 0.05, 0.5, 1.0 - 2.0**-24])
    found = pick(logits, Decoding(temperature=1.0), ends, NOTHING.expand(5, 0))
    assert found.tolist() == [1, 1, 1, 2, 4 if last == 0 else 2]


def test_the_first_token_of_an_answer_knows_no_repetition():
    logits = torch.tensor([[1.0, 0.9, -1.0]])
    greedy = Decoding(repetition_penalty=1.5)
    assert pick(logits, greedy, None, NOTHING).tolist() == [0]
    assert pick(logits, greedy, None, torch.tensor([[0]])).tolist() == [1]
    assert logits.tolist() == torch.tensor([[1.0, 0.9, -1.0]]).tolist()  # not changed in place


@pytest.mark.filterwarnings("ignore:Passing `repetition_penalty` with `inputs_embeds`")  # just what we mean
def test_answers_with_a_repetition_penalty_are_those_of_transformers():
    """Behind vectors transformers too penalises only what is generated."""
    backbone = family("qwen3")
    row = backbone.embed(backbone.ids("Tom has 12 apples and buys"))
    plain, strict = Decoding(20), Decoding(20, repetition_penalty=1.3)
    answers = {}
    for decoding in (plain, strict):
        found = backbone.generate([row], decoding)[0][0]
        out = backbone.model.generate(
            inputs_embeds=row[None], max_new_tokens=20, do_sample=False, repetition_penalty=decoding.repetition_penalty,
            top_k=None, top_p=None, temperature=None, eos_token_id=sorted(backbone.stops),
        )[0].tolist()  # fmt: skip
        answers[decoding] = [token for token in out if token not in backbone.stops]
        assert list(found.tokens) == answers[decoding]
    assert answers[plain] != answers[strict]


def test_a_length_must_be_known_when_it_comes_to_writing():
    backbone = family("qwen3")
    row = backbone.embed(backbone.ids("Tom"))
    with pytest.raises(ValueError, match="max_new_tokens is not given; give the most tokens of an answer"):
        backbone.generate([row], Decoding())


@pytest.mark.parametrize(
    ("settings", "complaint"),
    [
        ({"top_k": 0}, "top_k is 0; give a number from 1"),
        ({"min_p": 1.5}, "min_p is 1.5; give a number from 0 to 1"),
        ({"repetition_penalty": 0.0}, "repetition_penalty is 0.0; give a number from 0.001 to 1000"),
        ({"max_new_tokens": 0}, "max_new_tokens is 0; give a number from 1"),
    ],
)
def test_settings_out_of_range_are_one_sentence(settings, complaint):
    with pytest.raises(ValueError, match=complaint):
        Decoding(**settings)


# ------------------------------------------------------------------------------------------------- decodings by a name


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("qwen3", Decoding(4096, temperature=0.7, top_p=0.8, top_k=20)),
        ("qwen2.5", Decoding(1024, temperature=0.5, top_k=10, repetition_penalty=1.05)),  # the penalty is its own
        ("llama-3.1", Decoding(1024, temperature=0.5, top_k=10)),
        ("llama-3.2", Decoding(1024, temperature=0.5, top_k=10)),
    ],
)
def test_published_decodings(backbone, expected):
    assert family(backbone).decoding("published") == expected


@pytest.mark.parametrize(
    ("backbone", "expected"),
    [
        ("qwen3", Decoding(temperature=0.6, top_p=0.95, top_k=20)),
        ("qwen2.5", Decoding(temperature=0.7, top_p=0.8, top_k=20, repetition_penalty=1.05)),
        ("llama-3.1", Decoding(temperature=0.6, top_p=0.9, top_k=50)),  # what transformers takes where nothing is said
        ("llama-3.2", Decoding()),  # its config does not ask for sampling
    ],
)
def test_the_models_own_decoding(backbone, expected):
    assert family(backbone).decoding("model") == expected


def test_greedy_is_the_default():
    assert family("qwen3").decoding("greedy") == Decoding()
    assert replace(Decoding(), temperature=0.0).top_k is None


def test_own_settings_at_their_edges():
    assert own(GenerationConfig(do_sample=True, top_k=0, max_new_tokens=9)) == Decoding(9, temperature=1.0)
    assert own(GenerationConfig(do_sample=True, min_p=0.1, num_beams=1, typical_p=1.0)).min_p == 0.1
    assert own(GenerationConfig(repetition_penalty=1.1)) == Decoding(repetition_penalty=1.1)
    with pytest.raises(
        ValueError, match=r"own decoding sets num_beams=4, which is not implemented here; use greedy or"
    ):
        own(GenerationConfig(num_beams=4))


def test_names_of_decodings_are_checked():
    with pytest.raises(
        ValueError, match=r"no published decoding for a backbone of family 'other', only for qwen3, qwen2\.5"
    ):
        family("plain").decoding("published")
    with pytest.raises(
        ValueError, match=r"unknown decoding 'modle': use one of greedy, model, published; did you mean"
    ):
        family("plain").decoding("modle")
