"""LT-Tuning: what a thought is made of, where marks are put, loss and gradients of plain passes, answers that think."""

from dataclasses import replace

import pytest
import torch
from torch import Tensor
from torch.nn import functional as F

from workbench.backbone import Backbone, Decoding
from workbench.backbone.thoughts import Made, State
from workbench.methods import Prompt, build
from workbench.methods.loops import LATENT, fill
from workbench.methods.lt_tuning import Adapter, LTTuning, LTTuningConfig, expected_word, fused, inserted
from workbench.methods.lt_tuning.config import PRESETS
from workbench.tasks import Task, load_task

FAMILIES = ("qwen3", "llama", "gpt2")
LAST = 2  # of the stages


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


def tuned(backbone: Backbone, **options) -> LTTuning:
    method = build("lt-tuning", backbone, LTTuningConfig(**options), seed=1).eval()
    assert isinstance(method, LTTuning)
    return method


def prompts(method: LTTuning, task: Task, count: int = 4) -> list[Prompt]:
    return [method.render(example, task) for example in task.examples("train", count)]


def marked(method: LTTuning, task: Task, *places: tuple[int, ...]) -> list[Prompt]:
    """Prompts with marks before these places of their targets, twice where a place is named twice."""
    found = []
    for prompt, own in zip(prompts(method, task, len(places)), places, strict=True):
        at = sorted(set(own))
        target = inserted(prompt.target, at, [own.count(place) for place in at], method.mark)
        found.append(replace(prompt, target=target))
    return found


PLACES = ((0, 0, 5), (), (3,), (7, 7, 2))  # at the reply's start and twice in a row, none, one, one and two

# -------------------------------------------------------------------------------------------- what thoughts are made of


def test_the_expected_word_is_the_mean_of_the_nucleus():
    table = torch.randn(5, 3, generator=torch.Generator().manual_seed(0))
    p = torch.tensor([[0.05, 0.6, 0.0, 0.35, 0.0]])
    logits = p.log().clamp(min=-50).index_fill(1, torch.tensor([4]), 90.0)  # the mark, whatever its logit

    def word(top_p: float, exclusive: bool, temperature: float = 1.0) -> Tensor:
        return expected_word(logits, table, 4, top_p, temperature, exclusive)[0]

    torch.testing.assert_close(word(0.9, exclusive=True), table[1])  # 0.6 + 0.35 crosses 0.9, so it is left out
    both = (0.6 * table[1] + 0.35 * table[3]) / 0.95
    torch.testing.assert_close(word(0.9, exclusive=False), both)
    torch.testing.assert_close(word(0.96, exclusive=True), both)
    torch.testing.assert_close(word(0.01, exclusive=True), table[1])  # the likeliest always stays
    torch.testing.assert_close(word(0.01, exclusive=False), table[1])
    whole = 0.6 * table[1] + 0.35 * table[3] + 0.05 * table[0]
    torch.testing.assert_close(word(1.0, exclusive=False), whole)
    soft = (logits[:, :4] / 3).softmax(-1)[0] @ table[:4]
    torch.testing.assert_close(word(1.0, exclusive=False, temperature=3.0), soft)


def test_alpha_is_the_share_of_the_state():
    state, word = torch.randn(2, 3, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(fused(state, word, 1.0), state)
    assert torch.equal(fused(state, word, 0.0), word)
    torch.testing.assert_close(fused(state, word, 0.6), 0.6 * state + 0.4 * word)


def test_an_adapter_is_a_bottleneck_with_or_without_a_norm_behind_it():
    z = torch.randn(3, 6, generator=torch.Generator().manual_seed(0))
    for norm in (True, False):
        adapter = Adapter(6, 4, norm)
        inner = z @ adapter.down.weight.T + adapter.down.bias
        gelu = inner * 0.5 * (1 + torch.erf(inner / 2**0.5))
        out = gelu @ adapter.up.weight.T + adapter.up.bias
        if norm:  # as it starts: scale 1, shift 0
            out = (out - out.mean(-1, keepdim=True)) / (out.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()
        torch.testing.assert_close(adapter(z), out)


@pytest.mark.parametrize("family", FAMILIES)
def test_layers_are_counted_as_by_transformers(tiny, task, family):
    """-1 is what the head reads; -2 is not, and is what the last block reads."""
    for layer in (-1, -2, -3):
        method = tuned(tiny(family), layer=layer, mode="hidden")
        batch = marked(method, task, *PLACES)
        filled = method.filled(batch, "hidden")
        for row, real, latent in zip(filled.embeds, filled.mask, filled.latent, strict=True):
            states = plain(method, row[real])[0].hidden_states[layer][0]
            for place in latent[real].nonzero()[:, 0].tolist():
                torch.testing.assert_close(row[real][place], states[place - 1], atol=1e-5, rtol=1e-4)


def plain(method: LTTuning, row: Tensor) -> tuple:
    return (method.backbone.model(inputs_embeds=row[None], use_cache=False, output_hidden_states=True),)


def test_a_pause_is_the_marks_own_embedding_and_a_soft_thought_the_expected_word(tiny, task):
    for mode in ("pause", "soft"):
        method = tuned(tiny(), mode=mode)
        filled = method.filled(marked(method, task, *PLACES), mode)
        for row, real, latent in zip(filled.embeds, filled.mask, filled.latent, strict=True):
            (out,) = plain(method, row[real])
            for place in latent[real].nonzero()[:, 0].tolist():
                word = expected_word(out.logits[0, place - 1 : place], method.backbone.table, method.mark, 0.8)
                expected = method.backbone.table[method.mark] if mode == "pause" else word[0]
                torch.testing.assert_close(row[real][place], expected, atol=1e-5, rtol=1e-4)


def test_states_can_be_scaled_to_the_words_inputs(tiny, task):
    method = tuned(tiny(), mode="hidden", state_scale="embedding")
    filled = method.filled(marked(method, task, *PLACES), "hidden")
    sizes = filled.embeds[filled.latent].square().mean(-1).sqrt()
    torch.testing.assert_close(sizes, method.scale.expand_as(sizes))


# --------------------------------------------------------------------------------------------------- loss and gradients


def plain_loss(method: LTTuning, batch: list[Prompt], mode: str) -> Tensor:
    """The definition: before each thought the whole row is read again, without a cache; one row at a time."""
    model, config, losses = method.backbone.model, method.config, []
    for p in batch:
        row = method.backbone.embed(p.before)
        for token in p.target.tolist():
            if token == method.mark:
                out = model(inputs_embeds=row[None], use_cache=False, output_hidden_states=True)
                h, p_next = out.hidden_states[config.layer][0, -1], out.logits[0, -1].clone()
                p_next[method.mark] = -torch.inf
                p_next = p_next.softmax(-1)
                kept, mass = [], 0.0
                for word in p_next.argsort(descending=True).tolist():
                    if kept and mass >= config.top_p:
                        break
                    kept.append(word)
                    mass += p_next[word].item()
                e = p_next[kept] / p_next[kept].sum() @ method.backbone.table[kept]
                z = h if mode == "hidden" else config.alpha * h + (1 - config.alpha) * e
                row = torch.cat([row, (z if method.adapter is None else method.adapter(z[None])[0])[None]])
            else:
                row = torch.cat([row, method.backbone.embed(torch.tensor([token]))])
        logits = model(inputs_embeds=row[None], use_cache=False).logits[0, len(p.before) - 1 : -1]
        losses.append(F.cross_entropy(logits, p.target, reduction="none"))
    return torch.cat(losses).mean()


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize(("stage", "options"), [(1, {}), (LAST, {}), (LAST, {"adapter": 8, "layer": -1})])
def test_loss_and_gradients_are_those_of_plain_passes(tiny, task, family, stage, options):
    """In float64: thoughts alone, in a row, none, at places that differ from row to row."""
    method = tuned(tiny(family), **options).double()
    batch = marked(method, task, *PLACES)
    assert len({len(p.before) for p in batch}) > 1
    loss = method.loss(batch, stage).total
    expected = plain_loss(method, batch, "hidden" if stage == 1 else "fusion")
    torch.testing.assert_close(loss.double(), expected, atol=1e-6, rtol=1e-6)  # losses are float32
    parameters = dict(method.named_parameters())
    ours, theirs = (
        torch.autograd.grad(total, list(parameters.values()), allow_unused=True) for total in (loss, expected)
    )
    for name, a, b in zip(parameters, ours, theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None and b is not None:
            assert a.abs().max() > 0
            torch.testing.assert_close(a, b, atol=1e-7, rtol=1e-5)  # norms are float32 within


@pytest.mark.parametrize("family", FAMILIES)
def test_piece_by_piece_is_one_pass_over_what_was_read(tiny, task, family):
    """In float64, logits at every label."""
    method = tuned(tiny(family)).double()
    filled = method.filled(marked(method, task, *PLACES), "fusion")
    for row, real, logits in zip(filled.embeds, filled.mask, filled.logits, strict=True):
        whole = method.backbone.model(inputs_embeds=row[real][None], use_cache=False).logits[0]
        at = filled.columns[real[filled.columns]]
        torch.testing.assert_close(logits[real[filled.columns]], whole[real.cumsum(0)[at] - 1], atol=1e-6, rtol=1e-6)


def test_gradients_run_through_the_thoughts(tiny, task):
    method = tuned(tiny()).double()
    batch = marked(method, task, *PLACES)
    make = method.maker("fusion")

    def cut(state: State) -> Made:
        return replace(make(state), vector=make(state).vector.detach())

    rows = [torch.cat([p.before, p.target.masked_fill(p.target == method.mark, LATENT)]) for p in batch]
    labels = [torch.cat([torch.full_like(p.before, -100), p.target]) for p in batch]
    gradients, losses = [], []
    for step in (make, cut):
        loss = fill(method.backbone, rows, step, labels=labels, layers=method.layers).losses().mean()
        losses.append(loss.item())
        (gradient,) = torch.autograd.grad(loss, [method.backbone.model.model.layers[0].mlp.up_proj.weight])
        gradients.append(gradient)
    assert losses[0] == pytest.approx(losses[1], abs=1e-12)
    assert (gradients[0] - gradients[1]).norm() > 0.01 * gradients[0].norm()


@pytest.mark.parametrize("mean", ["token", "example"])
def test_without_marks_the_loss_is_that_of_a_language_model(tiny, task, mean):
    method = tuned(tiny(), likelihood_mean=mean)
    batch = prompts(method, task)
    each = [F.cross_entropy(
        method.backbone.model(input_ids=torch.cat([p.before, p.target])[None]).logits[0, len(p.before) - 1 : -1],
        p.target, reduction="none",
    ) for p in batch]  # fmt: skip
    expected = torch.cat(each).mean() if mean == "token" else torch.stack([one.mean() for one in each]).mean()
    torch.testing.assert_close(method.loss(batch, 0).total, expected)
    assert method.weigh(batch) == (sum(map(len, each)) if mean == "token" else 4)


def test_a_mark_is_a_label(tiny, task):
    method = tuned(tiny())
    filled = method.filled(marked(method, task, *PLACES), "fusion")
    assert int((filled.following == method.mark).sum()) == sum(map(len, PLACES))
    assert int(filled.latent.sum()) == sum(map(len, PLACES))


# ------------------------------------------------------------------------------------------------------------ answers


def eager(method: LTTuning, task: Task, share: float = 1.05) -> LTTuning:
    """With a mark that the model likes to write: its logit is `share` times that of the word it writes most."""
    batch = prompts(method, task, 5)
    answers = method.answer(batch, method.think(batch), Decoding(12))
    words = torch.tensor([word for paths in answers for (one,) in paths for word in one.tokens if word != method.mark])
    head = method.backbone.model.get_output_embeddings().weight
    with torch.no_grad():
        head[method.mark] = share * head[words.mode().values]
    return method


@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("temperature", [0.0, 1.0])
def test_an_answer_read_again_gives_the_logits_it_was_written_by(tiny, task, family, temperature):
    """Teacher-forced in one pass, it has the logits of every step, and every thought."""
    method = eager(tuned(tiny(family), max_consecutive_thoughts=3), task)
    batch, decoding = prompts(method, task, 5), Decoding(12, temperature=temperature)
    heard = listened(method)
    answers = method.answer(batch, method.think(batch), decoding, draws=2, seed=3)
    together = [one for paths in answers for path in paths for one in path]
    assert sum(0 if one.thoughts is None else one.thoughts.mask.sum() for one in together) > 1
    assert sum(len(one.tokens) for one in together) > 1
    for number, (prompt, ((first, _),)) in enumerate(zip(batch, answers, strict=True)):
        target = first_target(method, first)
        filled = method.filled([replace(prompt, target=target)], "fusion")
        latent = filled.latent[filled.mask].nonzero()[:, 0] - len(prompt.before)
        torch.testing.assert_close(
            filled.embeds[filled.latent], first.thoughts.vectors[0, 0][first.thoughts.mask[0, 0]], atol=1e-4, rtol=1e-3
        )
        assert latent.tolist() == (target == method.mark).nonzero()[:, 0].tolist()
        written = torch.stack([heard[2 * number, count] for count in range(len(target))])  # of two draws the first
        torch.testing.assert_close(filled.logits[0], written, atol=1e-4, rtol=1e-3)


def listened(method: LTTuning) -> dict[tuple[int, int], Tensor]:
    """What will be filled with the logits that each input of each row is chosen by, as the method writes."""
    heard, writing = {}, method.writing

    def listening(*given):
        step = writing(*given)

        def told(state):
            places = zip(state.rows.tolist(), state.count.tolist(), strict=True)
            heard.update(zip(places, state.logits.clone(), strict=True))
            return step(state)

        return told

    method.writing = listening
    return heard


def first_target(method: LTTuning, answer) -> Tensor:
    """Words and marks of a completion in order."""
    words = list(answer.tokens)
    for number, place in enumerate(answer.thoughts.places[0, 0].tolist()):
        words.insert(place + number, method.mark)
    return torch.tensor(words)


def test_thoughts_off_no_mark_is_written(tiny, task):
    method = eager(tuned(tiny(), test_thoughts=False), task)
    batch = prompts(method, task, 3)
    for ((answer,),) in method.answer(batch, method.think(batch), Decoding(10)):
        assert method.mark not in answer.tokens
        assert answer.thoughts is None or not answer.thoughts.mask.any()
        assert len(answer.tokens) > 0


def test_a_limit_of_thoughts_in_a_row_is_kept_and_said(tiny, task):
    method = eager(tuned(tiny(), max_consecutive_thoughts=2), task, share=20.0)
    batch = prompts(method, task, 3)
    answers = [path[0] for (path,) in method.answer(batch, method.think(batch), Decoding(9))]
    runs = torch.cat([one.thoughts.signals["run"][one.thoughts.mask] for one in answers])
    assert runs.max() == 2
    said = method.remark([one.thoughts for one in answers])
    assert f"the limit of 2 in a row was met {int((runs == 2).sum())} times" in said


def test_forced_thoughts_stand_before_the_answer(tiny, task):
    method = tuned(tiny(), forced_thoughts=6, test_thoughts=False)
    batch = prompts(method, task, 3)
    thoughts = method.think(batch)
    assert thoughts.vectors.shape == (3, 1, 6, method.backbone.width)
    row = torch.cat([method.backbone.embed(batch[0].before), thoughts.vectors[0, 0]])
    out = method.backbone.model(inputs_embeds=row[None], use_cache=False, output_hidden_states=True)
    place = len(batch[0].before) + 2
    word = expected_word(out.logits[0, place : place + 1], method.backbone.table, method.mark, 0.8)
    expected = fused(out.hidden_states[-2][0, place], word[0], 0.6)
    torch.testing.assert_close(thoughts.vectors[0, 0, 3], expected, atol=1e-5, rtol=1e-4)


# ----------------------------------------------------------------------------------------------------------- settings


def test_stages_of_the_presets():
    """1B: 1, 2 and 7 epochs of 10; 8B: 1, 1 and 3 of 5. The controls leave a stage out or change what a thought is."""
    shares = {}
    for name, config in PRESETS.items():
        method = object.__new__(LTTuning)
        torch.nn.Module.__init__(method)
        method.config = config
        shares[name] = [round(stage.share, 9) for stage in method.stages()]
        assert sum(shares[name]) == pytest.approx(1)
        assert [stage.joined for stage in method.stages()] == (
            [False, True, True] if name == "reference" else [False] * len(shares[name])
        )
    assert shares["paper-1b"] == [0.1, 0.2, 0.7]
    assert shares["paper-8b"] == [0.2, 0.2, 0.6]
    assert shares["without-stage-2"] == [0.1, 0.9]
    assert PRESETS["without-stage-2"].placement == "fixed"
    assert PRESETS["without-stage-2"].fixed_thoughts == 6


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"alpha": 1.5}, "alpha is 1.5; give a number from 0 to 1"),
        ({"layer": 0}, "layer is 0; give a number from"),
        ({"plain_share": 0.5, "state_share": 0.5}, "leave nothing for the last stage"),
    ],
)
def test_bad_settings_are_one_sentence(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LTTuningConfig(**options)


def test_the_given_backbone_stays_as_it_is(tiny):
    backbone = tiny()
    before = {name: p.clone() for name, p in backbone.model.state_dict().items()}
    method = tuned(backbone)
    assert len(method.backbone.tokenizer) == len(backbone.tokenizer) + 1
    assert torch.equal(method.backbone.table[method.mark], backbone.table[backbone.tokenizer.eos_token_id])
    for name, value in backbone.model.state_dict().items():
        assert torch.equal(value, before[name])
