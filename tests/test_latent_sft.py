"""Latent-SFT: rows and masks by their rules, losses of plain passes, superpositions, noise, and the latent loop."""

import dataclasses
from collections.abc import Sequence

import pytest
import torch
from latent_sft_taught import prompts, taught
from torch import Tensor
from torch.nn import functional as F

from workbench.backbone import Backbone
from workbench.backbone.leaves import states as leafy_states
from workbench.methods import Prompt
from workbench.methods.base import draw_seed
from workbench.methods.latent_sft import (
    LatentSFT,
    decoder_layout,
    encoder_layout,
    latent_layout,
)
from workbench.methods.latent_sft.layout import PROMPT, SLOT, TEXT, Layout
from workbench.tasks import Task, load_task

ENCODER, DECODER, UNION, LAST = range(4)  # of the default legs


@pytest.fixture(scope="module")
def task() -> Task:
    return load_task("arith")


def doubled(method: LatentSFT) -> LatentSFT:
    return method.double()


# ------------------------------------------------------------------------------------------------------ rows and masks


def ids(*values: int) -> Tensor:
    return torch.tensor(values)


def test_rows_masks_and_positions_of_an_example():
    """Ratio 2, a chain of five tokens, a prompt of three, an end mark of two, an answer of two."""
    prompt, chain, end, answer = ids(1, 2, 3), ids(10, 11, 12, 13, 14), ids(20, 21), ids(30, 31)
    encoder = encoder_layout(prompt, chain, end, 2, "physical")
    assert encoder.ids.tolist() == [1, 2, 3, 10, 11, -1, 12, 13, -1, 14, -1, 20, 21]
    decoder = decoder_layout(prompt, chain, torch.cat([end, answer]), 2)
    assert decoder.ids.tolist() == [1, 2, 3, -1, 12, 13, -1, 14, -1, 20, 21, 30, 31]
    assert decoder.positions.tolist() == [0, 1, 2, 3, 4, 5, 4, 5, 5, 6, 7, 8, 9]
    assert decoder.labels.tolist() == [-100] * 4 + [12, 13, -100, 14, -100, 20, 21, 30, 31]
    rows = [
        "1000000000000", "1100000000000", "1110000000000", "1111000000000", "0001100000000", "0001110000000",
        "1111001000000", "0000001100000", "1111001010000", "1111001011000", "1111001011100", "1111001011110",
        "1111001011111",
    ]  # fmt: skip
    assert ["".join(map(str, row.int().tolist())) for row in decoder.reads()] == rows
    shown = {at: "".join(map(str, encoder.reads()[at].int().tolist())) for at in (5, 8, 10, 9, 12)}
    assert shown == {
        5: "1111110000000", 8: "1111101110000", 10: "1111101101100", 9: "1111101101000", 12: "1111101101011",
    }  # fmt: skip
    assert encoder_layout(prompt, chain, end, 2).positions.tolist() == [0, 1, 2, 3, 4, 5, 5, 6, 7, 7, 8, 8, 9]
    assert latent_layout(prompt, 3, end).ids.tolist() == [1, 2, 3, -1, -1, -1, 20, 21]


def allowed(layout: Layout, query: int, key: int) -> bool:
    """The published rules, place by place."""
    kind, segment = layout.kind.tolist(), layout.segment.tolist()
    if key > query:
        return False
    if layout.leaf == SLOT:
        return kind[key] != SLOT or key == query
    if kind[query] == PROMPT:
        return kind[key] == PROMPT
    if kind[query] == SLOT:
        return kind[key] == PROMPT or (kind[key] == SLOT and segment[key] <= segment[query])
    if kind[query] == TEXT:
        return kind[key] in (SLOT, TEXT) and segment[key] == segment[query]
    return kind[key] != TEXT


@pytest.mark.parametrize(("n", "ratio", "p"), [(1, 1, 1), (1, 4, 3), (3, 4, 2), (7, 3, 1), (8, 2, 5), (6, 1, 2)])
def test_masks_follow_their_rule_whatever_the_lengths(n, ratio, p):
    chance = torch.Generator().manual_seed(n + 10 * ratio)
    prompt, chain = (torch.randint(2, 9, (size,), generator=chance) for size in (p, n))
    end = prompt[:1].repeat(2)  # the mark's ids stand in the prompt, too: nothing is searched for
    for layout in (encoder_layout(prompt, chain, end, ratio), decoder_layout(prompt, chain, end, ratio)):
        count = len(layout.ids)
        wanted = [[allowed(layout, q, k) for k in range(count)] for q in range(count)]
        assert layout.reads().tolist() == wanted
        assert len(layout.slots) == -(-n // ratio)


def test_an_empty_chain_is_refused():
    with pytest.raises(ValueError, match="a chain without steps has no latents"):
        decoder_layout(ids(1), ids(1)[:0], ids(2), 2)


# ----------------------------------------------------------------------------------------------- compaction is exact


def wide(tiny, family: str = "qwen3") -> Backbone:
    backbone = tiny(family)
    backbone.model.double()
    return backbone


def plain(backbone: Backbone, layout: Layout, vectors: Tensor) -> Tensor:
    """States by one dense mask of [place, place], as transformers computes them."""
    mask = torch.zeros(1, 1, *layout.reads().shape, dtype=vectors.dtype)
    mask = mask.masked_fill(~layout.reads(), torch.finfo(vectors.dtype).min)
    out = backbone.model.base_model(
        inputs_embeds=vectors[None], attention_mask=mask, position_ids=layout.positions[None], use_cache=False
    )
    return out.last_hidden_state[0]


def layouts() -> list[Layout]:
    prompt, chain, closing = torch.arange(7, 12), torch.arange(20, 31), torch.arange(40, 44)
    made = [decoder_layout(prompt[:k], chain[:n], closing, r) for k, n, r in ((5, 11, 3), (2, 1, 4), (3, 6, 2))]
    return [*made, *(encoder_layout(prompt[:k], chain[:n], closing, r) for k, n, r in ((5, 11, 3), (2, 1, 4)))]


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_rows_with_leaves_are_dense_masks_in_float64(tiny, family):
    """Of several rows at once, values and gradients by the inputs."""
    backbone, found = wide(tiny, family), layouts()
    for own in ([one for one in found if one.leaf == TEXT], [one for one in found if one.leaf == SLOT]):
        chance = torch.Generator().manual_seed(3)
        inputs = [torch.randn(len(one.ids), 32, dtype=torch.float64, generator=chance) for one in own]
        first, second = ([x.clone().requires_grad_() for x in inputs] for _ in range(2))
        fast = leafy_states(backbone.model, [one.leafy(x) for one, x in zip(own, first, strict=True)])
        slow = [plain(backbone, one, x) for one, x in zip(own, second, strict=True)]
        for a, b in zip(fast, slow, strict=True):
            torch.testing.assert_close(a, b, atol=1e-12, rtol=1e-12)
        probe = [torch.randn(a.shape, dtype=a.dtype, generator=chance) for a in fast]
        for states in (fast, slow):
            torch.stack([(a * b).sum() for a, b in zip(states, probe, strict=True)]).sum().backward()
        for a, b in zip(first, second, strict=True):
            torch.testing.assert_close(a.grad, b.grad, atol=1e-11, rtol=1e-10)


def test_the_decoder_is_a_plain_pass_over_prompt_latents_and_closing(tiny):
    """And with positions as places stand it is not."""
    backbone, layout = wide(tiny), layouts()[0]
    inputs = torch.randn(len(layout.ids), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    row = layout.kind != TEXT
    compact = backbone.model.base_model(inputs_embeds=inputs[row][None], use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(plain(backbone, layout, inputs)[row], compact, atol=1e-12, rtol=1e-12)
    physical = dataclasses.replace(layout, positions=torch.arange(len(layout.ids)))
    assert (plain(backbone, physical, inputs)[row] - compact).abs().max() > 1e-3


def test_the_encoders_text_never_sees_a_slot(tiny):
    backbone, layout = wide(tiny), layouts()[3]
    inputs = torch.randn(len(layout.ids), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    text, slots = layout.kind != SLOT, layout.slots
    (states,) = leafy_states(backbone.model, [layout.leafy(inputs)])
    compact = backbone.model.base_model(inputs_embeds=inputs[text][None], use_cache=False).last_hidden_state[0]
    torch.testing.assert_close(states[text], compact, atol=1e-12, rtol=1e-12)
    other = inputs.clone()
    other[slots[1]] += 1
    (changed,) = leafy_states(backbone.model, [layout.leafy(other)])
    moved = (changed - states).abs().amax(1) > 1e-9
    assert moved.nonzero()[:, 0].tolist() == [int(slots[1])]


def test_no_gradient_crosses_a_mask(tiny):
    backbone, layout = wide(tiny), layouts()[0]
    inputs = torch.randn(len(layout.ids), 32, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    inputs.requires_grad_()
    (states,) = leafy_states(backbone.model, [layout.leafy(inputs)])
    text = layout.kind == TEXT
    (gradient,) = torch.autograd.grad(states[~text].square().sum(), inputs, retain_graph=True)
    assert not gradient[text].any()
    assert gradient[~text].abs().sum(1).gt(0).all()
    own = text & (layout.segment == 1)
    (gradient,) = torch.autograd.grad(states[own].square().sum(), inputs)
    assert not gradient[text & ~own].any()
    assert gradient[own].abs().sum(1).gt(0).all()
    # through its latent, what stands before that one counts
    assert gradient[layout.kind == PROMPT].any()


# ------------------------------------------------------------------------------------------------------------- losses


def dense_loss(method: LatentSFT, prompt: Prompt) -> tuple[Tensor, Tensor]:
    """Latents and negative log-likelihoods of one example's labels as the paper writes them, in dense passes."""
    assert method.encoder is not None
    config, chain = method.config, torch.cat(prompt.steps)
    closing = torch.cat([prompt.after, prompt.target])
    encoder = encoder_layout(prompt.before, chain, prompt.after, config.ratio, config.encoder_positions)
    inputs = method.encoder.embed(encoder.ids.clamp(min=0))
    inputs = torch.where((encoder.kind == SLOT)[:, None], method.compress, inputs)
    hidden = plain(method.encoder, encoder, inputs)[encoder.slots]
    table = method.backbone.table.detach()
    logits = hidden @ table.T
    barred = torch.tensor([method.backbone.tokenizer.pad_token_id, int(prompt.after[0])])
    logits = logits.index_fill(1, barred, -torch.inf)
    kept = logits.topk(config.components or logits.shape[1], dim=1).indices
    p = torch.full_like(logits, -torch.inf).scatter(1, kept, logits.gather(1, kept)).softmax(1)
    z = p @ table
    decoder = decoder_layout(prompt.before, chain, closing, config.ratio)
    row = method.backbone.embed(decoder.ids.clamp(min=0)).index_copy(0, decoder.slots, z)
    found = method.backbone.model.get_output_embeddings()(plain(method.backbone, decoder, row))
    labelled = decoder.labels[1:] >= 0
    return z, F.cross_entropy(found[:-1][labelled], decoder.labels[1:][labelled], reduction="none")


@pytest.mark.parametrize("components", [3, None])
def test_the_first_legs_are_plain_dense_passes(tiny, task, components):
    """Loss and gradients of all that is trained, in float64."""
    method = doubled(taught(tiny(), components=components, ratio=3))
    batch = prompts(method, task)
    loss = method.loss(batch, UNION).total
    wanted = torch.cat([dense_loss(method, prompt)[1] for prompt in batch]).mean()
    torch.testing.assert_close(loss.double(), wanted, atol=1e-6, rtol=1e-6)  # likelihoods are float32
    names, values = zip(*method.learned().items(), strict=True)
    ours, theirs = (torch.autograd.grad(value, values, allow_unused=True) for value in (loss, wanted))
    for name, a, b in zip(names, ours, theirs, strict=True):
        assert (a is None) == (b is None), name
        if a is not None:
            torch.testing.assert_close(a, b, atol=1e-6, rtol=1e-4)


def test_the_plain_way_is_the_same(tiny, task):
    method = doubled(taught(tiny()))
    batch = prompts(method, task)
    fast = [method.loss(batch, leg).total for leg in (UNION, LAST)]
    method.backbone.padded = method.backbone.full_logits = True
    slow = [method.loss(batch, leg).total for leg in (UNION, LAST)]
    torch.testing.assert_close(torch.stack(fast), torch.stack(slow), atol=1e-6, rtol=1e-6)


def test_a_segment_may_read_the_first_token_too(tiny, task):
    layout = decoder_layout(ids(1, 2), ids(3, 4, 5), ids(6), 2, sink=True)
    assert layout.reads()[3].tolist() == [True, False, True, True, False, False]
    plain_one, sunk = taught(tiny()), taught(tiny(), supervision_sink="first-token")
    batch = prompts(sunk, task)
    found = sunk.loss(batch, UNION)
    assert found.parts["closing"].item() == pytest.approx(
        plain_one.loss(batch, UNION).parts["closing"].item(), rel=1e-5
    )
    assert abs(found.parts["segments"] - plain_one.loss(batch, UNION).parts["segments"]) > 1e-3


def test_a_mean_over_segments_gives_each_segment_one_vote(tiny, task):
    method = taught(tiny(), loss_mean="segment", ratio=3)
    batch = prompts(method, task)
    values = []
    for prompt in batch:
        pieces = [*torch.cat(prompt.steps).split(3)[1:], torch.cat([prompt.after, prompt.target])]
        each = dense_loss(method, prompt)[1].split([len(piece) for piece in pieces])
        values.append(torch.stack([own.mean() for own in each]).mean())
    torch.testing.assert_close(method.loss(batch, UNION).total, torch.stack(values).mean())


def plain_imitation(method: LatentSFT, prompt: Prompt, labels: dict[str, Tensor]) -> tuple[Tensor, Tensor]:
    """Divergences at latents and likelihoods of the closing, from one causal pass and a whole log-softmax."""
    closing = torch.cat([prompt.after, prompt.target])
    z = (labels["weights"][..., None] * method.backbone.embed(labels["tokens"])).sum(1)
    embeds = method.backbone.embed_each([prompt.before, closing])
    row = torch.cat([embeds[0], z, embeds[1]])
    logp = method.backbone.model(inputs_embeds=row[None], use_cache=False).logits[0].log_softmax(-1)
    p, count = len(prompt.before), len(z)
    q = labels["weights"] / labels["weights"].sum(1, keepdim=True)
    kl = (q * (q.log() - logp[p - 1 : p - 1 + count].gather(1, labels["tokens"]))).sum(1)
    nll = -logp[p + count - 1 : -1].gather(1, closing[:, None])[:, 0]
    return kl, nll


@pytest.mark.parametrize("loss_mean", ["token", "segment"])
def test_the_last_leg_is_a_plain_causal_pass(tiny, task, loss_mean):
    method = doubled(taught(tiny(), kl_weight=0.7, likelihood_weight=1.3, exit_weight=2.0, loss_mean=loss_mean))
    batch = method.start(LAST, prompts(method, task))
    found = method.loss(batch, LAST)
    kls, nlls = zip(*(plain_imitation(method, prompt, prompt.given) for prompt in batch), strict=True)
    kl = torch.stack([own.mean() for own in kls]).mean()
    weighed = [own * torch.tensor([2.0, *[1.0] * (len(own) - 1)]) for own in nlls]
    nll = torch.cat(weighed).mean() if loss_mean == "token" else torch.stack([own.mean() for own in weighed]).mean()
    torch.testing.assert_close(found.parts["kl"], kl)
    torch.testing.assert_close(found.total, 0.7 * kl + 1.3 * nll, atol=1e-6, rtol=1e-6)
    exits = torch.stack([own[0] for own in nlls]).mean()
    torch.testing.assert_close(found.parts["exit"].double(), exits, atol=1e-6, rtol=1e-6)
    values = list(method.backbone.model.base_model.layers.parameters())
    ours = torch.autograd.grad(found.total, values)
    theirs = torch.autograd.grad(0.7 * kl + 1.3 * nll, values)
    for a, b in zip(ours, theirs, strict=True):
        torch.testing.assert_close(a, b, atol=2e-6, rtol=1e-4)


def test_one_noise_is_read_and_taught_and_is_that_of_the_visit(tiny, task, monkeypatch):
    method = taught(tiny()).train()
    batch = method.start(LAST, prompts(method, task))
    read: list[Sequence[dict[str, Tensor]]] = []
    vectors = method.vectors
    monkeypatch.setattr(method, "vectors", lambda labels: read.append(labels) or vectors(labels))
    method.begin_epoch(LAST, 3)
    torch.manual_seed(5)
    found = method.loss(batch, LAST).parts["kl"]
    wanted = torch.stack([plain_imitation(method, p, own)[0].mean() for p, own in zip(batch, read[0], strict=True)])
    torch.testing.assert_close(found, wanted.mean())
    torch.manual_seed(6)
    assert torch.equal(method.loss([batch[1], batch[0]], LAST).parts["kl"] * 0, found * 0)
    torch.testing.assert_close(read[1][1]["weights"], read[0][0]["weights"])  # whoever else is in the batch
    method.begin_epoch(LAST, 4)
    method.loss(batch, LAST)
    assert not torch.equal(read[2][0]["weights"], read[0][0]["weights"])
    assert not torch.equal(read[0][0]["weights"], batch[0].given["weights"])
    assert draw_seed(0, "a 3", 0) != draw_seed(0, "a 4", 0)


def test_the_decoders_leg_from_labels_is_that_from_the_encoder(tiny, task):
    """Frozen without dropout, the encoder says the same every time."""
    method = taught(tiny())
    batch = prompts(method, task)
    kept = method.loss(method.start(DECODER, batch), DECODER).total
    torch.testing.assert_close(kept, method.loss(batch, UNION).total)
