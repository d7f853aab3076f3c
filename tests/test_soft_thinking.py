"""Soft Thinking: golden numbers, greedy decoding as its limit, ends of thinking, noise, and the chain read again."""

import math
from dataclasses import replace

import pytest
import torch
from families import family
from scipy.stats import chisquare
from torch import Tensor
from transformers import Gemma3ForCausalLM, Gemma3TextConfig, GemmaConfig, GemmaForCausalLM

from workbench.backbone import Backbone, Decoding
from workbench.methods import Thoughts, build
from workbench.methods.base import Prompt
from workbench.methods.loops import State
from workbench.methods.mixtures import mixed
from workbench.methods.soft_thinking import CAP, COLD, MARK, TEXT, SoftThinking, SoftThinkingConfig, _Chains
from workbench.tasks import Example, load_task

FAMILIES = ("qwen3", "llama", "gpt2")
P = torch.tensor([[0.05, 0.5, 0.3, 0.15]])  # in no order


def prompts(backbone: Backbone, *lengths: int, end: str = "####") -> list[Prompt]:
    none = torch.zeros(0, dtype=torch.long)
    return [
        Prompt(Example(f"e{n}", "q", (), "1"), torch.arange(6, 6 + n), backbone.ids(end), none, none, (), none)
        for n in lengths
    ]


def soft(backbone: Backbone, **options) -> SoftThinking:
    method = build("soft-thinking", backbone, SoftThinkingConfig(**options)).eval()
    assert isinstance(method, SoftThinking)
    return method


# ----------------------------------------------------------------------------------------------------- whole chains


def plain_greedy(backbone: Backbone, before: Tensor, count: int) -> list[int]:
    """Greedy decoding by transformers, never stopping."""
    return backbone.model.generate(
        before[None], attention_mask=torch.ones_like(before[None]), max_new_tokens=count, min_new_tokens=count,
        do_sample=False, pad_token_id=0,
    )[0, len(before) :].tolist()  # fmt: skip


@pytest.mark.slow
@pytest.mark.parametrize("options", [{"components": 1}, {"feedback": "greedy"}, {"temperature": 0.0}], ids=str)
@pytest.mark.parametrize("model", FAMILIES)
def test_one_component_is_greedy_decoding_token_for_token(tiny, model, options):
    backbone = tiny(model)
    backbone.model.generation_config.eos_token_id = None
    method, given = soft(backbone, max_thoughts=12, cold_stop_entropy=0.0, **options), prompts(backbone, 5, 9, 4)
    thoughts = method.think(given)
    assert thoughts.tokens is not None
    for k, p in enumerate(given):
        found = thoughts.tokens[k, 0][thoughts.mask[k, 0]].tolist()
        written = plain_greedy(backbone, p.before, 12)
        ends = [i for i, t in enumerate(written) if t in backbone.stops or t == int(p.after[0])]
        assert found == written[: ends[0] if ends else 12]
    torch.testing.assert_close(thoughts.vectors[thoughts.mask], backbone.embed(thoughts.tokens[thoughts.mask]))
    assert (thoughts.signals["top_weight"][thoughts.mask] == 1).all()


@pytest.mark.slow
def test_on_the_shipped_backbone_one_component_answers_as_the_chain_of_thought_does():
    backbone, task = Backbone.load("nano"), load_task("arith")
    cot, one = build("cot", backbone), soft(backbone, components=1, max_thoughts=64)
    examples = task.examples("dev", 8)
    texts = []
    for method in (cot, one):
        given = [method.render(example, task) for example in examples]
        texts.append([a[0][0].text for a in method.answer(given, method.think(given), Decoding(64))])
    for worked, answer, example in zip(*texts, examples, strict=True):
        assert answer == worked.splitlines()[-1]
        assert answer.startswith("#### ")
        assert task.parse(answer) == task.parse(worked) == example.answer


@pytest.mark.parametrize("model", FAMILIES)
def test_a_batch_thinks_as_each_row_alone_does(tiny, model):
    backbone = tiny(model)
    for options in ({}, {"noise": "gumbel"}, {"noise": "dirichlet"}, {"feedback": "sample"}, {"feedback": "mean"}):
        method, given = soft(backbone, max_thoughts=5, top_k=None, **options), prompts(backbone, 5, 9, 4)
        together = method.think(given, paths=2)
        for k, p in enumerate(given):
            alone, count = method.think([p], paths=2), int(together.mask[k].sum(-1).max())
            torch.testing.assert_close(alone.vectors[0], together.vectors[k, :, :count], atol=1e-4, rtol=1e-3)
            assert alone.mask[0].equal(together.mask[k, :, :count])
        drawn = bool(options) and options != {"feedback": "mean"}
        assert torch.equal(together.vectors[:, 0], together.vectors[:, 1]) != drawn


@pytest.mark.parametrize("model", FAMILIES)
def test_the_kept_mixture_gives_the_thoughts_and_their_entropies_again(tiny, model):
    """Re-embedded from ids and weights and read in one pass, without the cache they grew in."""
    backbone = tiny(model)
    method, given = soft(backbone, max_thoughts=6), prompts(backbone, 5, 9)
    thoughts = method.think(given)
    assert thoughts.mixture is not None
    again = mixed(backbone, thoughts.mixture.tokens, thoughts.mixture.weights)
    torch.testing.assert_close(again, thoughts.vectors)
    for k, p in enumerate(given):
        count = int(thoughts.mask[k].sum())
        row = torch.cat([backbone.embed(p.before), again[k, 0, :count]])[None]
        logits = backbone.model(inputs_embeds=row).logits[0, len(p.before) - 1 : -1]
        entropy = torch.special.entr((logits / 0.6).softmax(-1)).sum(-1)
        torch.testing.assert_close(thoughts.signals["entropy"][k, 0, :count], entropy, atol=1e-4, rtol=1e-4)


def test_entropy_is_of_all_of_the_tempered_distribution(tiny):
    """(.5, .3, .15, .05) has 1.14212 nats whatever top_k leaves; temperature counts; at 0 it is that at 1."""
    backbone = tiny()
    rows, number = torch.tensor([0]), torch.tensor([0])
    for options, expected in (
        ({"temperature": 1.0, "top_k": 1}, 1.14212),
        ({"temperature": 0.0}, 1.14212),
        ({"temperature": 0.5}, float(torch.special.entr(P.square() / P.square().sum()).sum())),
    ):
        chains = _Chains(backbone, SoftThinkingConfig(**options), prompts(backbone, 5), 1)
        made = chains.step(State(torch.zeros(1, backbone.width), P.log(), rows, number))
        assert made.signals["entropy"].item() == pytest.approx(expected, abs=1e-5)


def test_drawn_words_follow_the_probabilities(tiny):
    backbone = tiny()
    given = [replace(prompts(backbone, 5)[0], example=Example(f"e{k}", "q", (), "1")) for k in range(400)]
    for options in ({"feedback": "sample"}, {"noise": "gumbel", "gumbel_temperature": 1e-6, "components": 4096}):
        method = soft(backbone, max_thoughts=1, temperature=0.7, top_k=6, top_p=1.0, min_p=0.0, **options)
        shown = method.think(given).mixture
        assert shown is not None
        logits = backbone.model(given[0].before[None]).logits[0, -1] / 0.7
        ids = logits.topk(6).indices
        p = logits[ids].softmax(-1)
        keep = ~torch.isin(ids, torch.tensor([*backbone.stops, int(given[0].after[0])]))  # these end a chain
        counts = torch.tensor([int((shown.tokens[:, 0, 0, 0] == i).sum()) for i in ids])[keep]
        assert counts.sum() > 200
        expected = p[keep].detach().double() / p[keep].detach().double().sum() * counts.sum()
        assert chisquare(counts.numpy(), expected.numpy()).pvalue > 1e-3


@pytest.mark.parametrize("kind", ["gemma", "gemma3"])
def test_a_model_that_scales_its_embeddings_is_fed_scaled_mixtures(tiny, kind):
    """In its first layer (Gemma) or in the table's module (Gemma 3): a mixture of one word is that word."""
    shape = {
        "vocab_size": len(tiny().table), "hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2,
        "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "initializer_range": 0.2,
        "bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 0,
    }  # fmt: skip
    torch.manual_seed(0)
    model = GemmaForCausalLM(GemmaConfig(**shape)) if kind == "gemma" else Gemma3ForCausalLM(Gemma3TextConfig(**shape))
    backbone = Backbone(model, tiny().tokenizer, kind)
    backbone.model.generation_config.eos_token_id = None
    given = prompts(backbone, 5, 8)
    thoughts = soft(backbone, components=1, max_thoughts=6, cold_stop_entropy=0.0).think(given)
    assert thoughts.tokens is not None
    for k, p in enumerate(given):
        found = thoughts.tokens[k, 0][thoughts.mask[k, 0]].tolist()
        assert len(found) > 2
        assert found == plain_greedy(backbone, p.before, 6)[: len(found)]


# ----------------------------------------------------------------------------------------------------------- the ends


class Script:
    """Logits that a test writes: feeds `_Chains` token by token, as `unroll` would."""

    def __init__(self, backbone: Backbone, config: SoftThinkingConfig, end: str = "####", rows: int = 1):
        self.backbone = backbone
        self.chains = _Chains(backbone, config, prompts(backbone, *range(4, 4 + rows), end=end), 1)
        self.number = 0

    def say(self, *shown: tuple[int, float]) -> list[bool]:
        """Each row's likeliest token and its probability (the rest is spread); whether the row ends here."""
        p = torch.full((len(shown), len(self.backbone.table)), 1e-9)
        for line, (token, top) in zip(p, shown, strict=True):
            line[token], line[(token + 1) % len(line)] = top, 1 - top
        rows = torch.arange(len(shown))
        state = State(torch.zeros(len(shown), self.backbone.width), p.log(), rows, torch.full_like(rows, self.number))
        self.number += 1
        self.made = self.chains.step(state)
        return self.chains.stop(state, self.made).tolist()


def entropy_of(top: float) -> float:
    return -top * math.log(top) - (1 - top) * math.log(1 - top)


SURE, UNSURE = 0.9999, 0.9  # entropies .0010 and .325, about the threshold of .01


def test_cold_stop_golden_sequence(tiny):
    """Entropies .5 .001 .001 .2 .001 .001 .001 with three certain steps: forced at the seventh."""
    for top, entropy in ((0.9, 0.3251), (0.99, 0.0560), (0.999, 0.0079)):
        assert entropy_of(top) == pytest.approx(entropy, abs=1e-4)
    script = Script(tiny(), SoftThinkingConfig(temperature=1.0, cold_stop_steps=3))
    tops = (0.8, SURE, SURE, 0.95, SURE, SURE, SURE)
    assert [script.say((9, top))[0] for top in tops] == [False] * 6 + [True]
    assert script.chains.exits.tolist() == [COLD]


def test_cold_stop_counts_for_each_row_alone_and_can_be_off(tiny):
    script = Script(tiny(), SoftThinkingConfig(temperature=1.0, cold_stop_steps=2), rows=2)
    assert [script.say((9, a), (9, b)) for a, b in ((SURE, UNSURE), (SURE, SURE))] == [[False, False], [True, False]]
    assert script.say((9, UNSURE), (9, SURE)) == [False, True]
    off = Script(tiny(), SoftThinkingConfig(temperature=1.0, cold_stop_entropy=0.0, cold_stop_steps=1))
    assert [off.say((9, SURE)) for _ in range(4)] == [[False]] * 4


def test_cold_stop_comes_before_the_end_of_text_unless_as_published(tiny):
    """Published, the end of text was looked for first, so a certain one ended the reply without an answer."""
    backbone = tiny()
    eos = next(iter(backbone.stops))
    ours = Script(backbone, SoftThinkingConfig(temperature=1.0, cold_stop_steps=1))
    assert ours.say((eos, SURE)) == [True]
    assert ours.chains.exits.tolist() == [COLD]
    published = Script(backbone, replace(SoftThinkingConfig.reference(), temperature=1.0, cold_stop_steps=1))
    assert published.say((eos, SURE)) == [False]
    assert published.made.token is not None
    assert published.made.token.tolist() == [eos]
    assert torch.equal(published.made.vector[0], backbone.table[eos])
    assert published.say((9, UNSURE)) == [True]
    assert published.chains.exits.tolist() == [TEXT]


def test_the_end_mark_may_have_several_tokens(tiny):
    """It is matched whole; published, its last token was enough."""
    backbone = tiny()
    one, two, three = backbone.ids("1 + 2").tolist()
    script = Script(backbone, SoftThinkingConfig(), end="1 + 2")
    said = [three, one, two, one, two, three]
    assert [script.say((token, 0.9))[0] for token in said] == [False] * 5 + [True]
    assert script.chains.exits.tolist() == [MARK]
    loose = Script(backbone, SoftThinkingConfig.reference(), end="1 + 2")
    assert loose.say((three, 0.9)) == [True]


def test_what_showed_the_beginning_of_the_end_mark_is_no_thought(tiny):
    """The mark is read whole and as text behind the thoughts, however thinking ended."""
    backbone = tiny()
    one, two, _ = backbone.ids("1 + 2").tolist()
    chains = _Chains(backbone, SoftThinkingConfig(), prompts(backbone, 5, 6, 7, end="1 + 2"), 1)
    chains.exits = torch.tensor([MARK, COLD, 0])
    mask = torch.ones(3, 1, 4, dtype=torch.bool)
    tokens = torch.tensor([8, 9, one, two]).expand(3, 1, 4)
    thoughts = chains.finished(Thoughts(backbone.embed(tokens), mask, tokens, {"entropy": torch.zeros(3, 1, 4)}))
    assert thoughts.mask[:, 0].sum(1).tolist() == [2, 4, 4]
    assert thoughts.tokens is not None
    assert thoughts.tokens[0, 0].tolist() == [8, 9, -1, -1]
    assert (thoughts.vectors[0, 0, 2:] == 0).all()
    exits = thoughts.signals["exit"][:, 0]
    assert exits[0, :2].tolist() == [0, MARK]
    assert exits[0, 2:].isnan().all()
    assert exits[1:, 3].tolist() == [COLD, CAP]


def test_a_chain_that_ends_the_text_has_no_answer_as_published_and_one_by_default(tiny):
    backbone = tiny("llama")
    eos = next(iter(backbone.stops))
    method, given = soft(backbone, end_of_text="stops", max_thoughts=4), prompts(backbone, 5, 6)
    tokens = torch.tensor([[[8, 9, eos]], [[8, 9, 10]]])
    thoughts = Thoughts(backbone.embed(tokens), torch.ones(2, 1, 3, dtype=torch.bool), tokens)
    first, second = (found[0][0] for found in method.answer(given, thoughts, Decoding(4)))
    assert (first.text, first.tokens, first.finished) == ("", (), True)
    assert second.text.startswith("####")
    shorter = replace(thoughts, mask=torch.tensor([[[True, True, False]]] * 2))
    assert method.answer(given, shorter, Decoding(4))[0][0][0].text.startswith("####")


def test_the_answer_has_settings_of_its_own(tiny):
    """Thinking is soft, the answer greedy or drawn by its own temperature, behind the end mark."""
    backbone = tiny()
    method, given = soft(backbone, max_thoughts=3), prompts(backbone, 5, 7)
    thoughts = method.think(given)
    greedy = method.answer(given, thoughts, Decoding(5), draws=2)
    assert all(found[0][0] == found[0][1] for found in greedy)
    drawn = method.answer(given, thoughts, Decoding(5, temperature=2.0), draws=4)
    assert any(len({one.tokens for one in found[0]}) > 1 for found in drawn)
    p, vectors = given[0], thoughts.vectors[0, 0][thoughts.mask[0, 0]]
    row = torch.cat([backbone.embed(p.before), vectors, backbone.embed(p.after)])
    assert backbone.generate([row], Decoding(5))[0][0].tokens == greedy[0][0][0].tokens


# ------------------------------------------------------------------------------------------------------------ prompts


def test_thinking_starts_where_a_reasoning_model_thinks():
    """Between <think> and </think> where there are such; else where the worked steps would stand, up to the mark."""
    backbone, task = family("qwen3"), load_task("arith")
    example = task.examples("dev", 1)[0]
    decode = backbone.tokenizer.decode
    prompt = soft(backbone).render(example, task)
    assert decode(prompt.before).endswith("<|im_start|>assistant\n<think>\n")
    assert decode(prompt.before).count("<think>") == 1
    assert decode(prompt.after) == "</think>"
    own = soft(backbone, end="so").render(example, task)
    assert decode(own.after) == "so"
    nano = Backbone.load("nano")
    prompt, worked = soft(nano).render(example, task), build("cot", nano).render(example, task)
    assert torch.equal(prompt.before, torch.cat([worked.before, worked.after]))
    assert nano.tokenizer.decode(prompt.after) == "####"


@pytest.mark.parametrize("model", ["qwen3", "qwen2.5", "llama-3.1", "plain", "sentences"])
def test_it_thinks_on_every_family(model):
    backbone, task = family(model), load_task("arith")
    method = soft(backbone, max_thoughts=3)
    given = [method.render(example, task) for example in task.examples("dev", 2)]
    thoughts = method.think(given)
    assert thoughts.vectors.isfinite().all()
    assert all(len(found[0][0].tokens) <= 4 for found in method.answer(given, thoughts, Decoding(4)))


# ------------------------------------------------------------------------------------------------------------- remark


def test_the_remark_says_when_it_is_greedy_and_how_chains_ended():
    def told(weights: list[float], exit: int) -> Thoughts:
        w = torch.tensor([[weights]])
        exits = torch.zeros_like(w)
        exits[..., -1] = exit
        return Thoughts(torch.zeros(*w.shape, 2), torch.ones_like(w).bool(), signals={"top_weight": w, "exit": exits})

    method = object.__new__(SoftThinking)
    assert method.remark([told([1.0] * 19, MARK), told([0.5], COLD)]) == (
        "in 95.0 % of 20 thoughts the likeliest word weighs more than 0.99: effectively greedy decoding; "
        "chains ended: 1 at the end mark, 1 by cold stop, 0 at the length cap, 0 at the end of text"
    )
    assert "50.0 % of 4" in (said := method.remark([told([1.0, 0.7], CAP), told([1.0, 0.6], CAP)]))
    assert "not greedy decoding" in said
    assert "mostly greedy decoding" in method.remark([told([1.0, 1.0, 0.7], CAP)])
    assert method.remark([]) == ""


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"components": 0}, "components is 0; give a number from 1 to 4096"),
        ({"noise": "gumbel", "feedback": "greedy"}, "noise='gumbel' disturbs weights, which feedback='greedy'"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, said):
    with pytest.raises(ValueError, match=said):
        SoftThinkingConfig(**options)
