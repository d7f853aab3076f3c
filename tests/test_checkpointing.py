"""Gradient checkpointing: the same values and gradients from less memory, behind a cached prompt or a growing cache."""

import pytest
import torch
from mean_read import MeanRead, rows
from saved import saved_bytes
from torch import nn
from transformers.modeling_layers import GradientCheckpointingLayer

from workbench.backbone.checkpointing import checkpointed
from workbench.tasks import load_task
from workbench.training.loop import train
from workbench.training.plan import TrainConfig

FAMILIES = ("qwen3", "llama", "gpt2")


def prompts(method: MeanRead, count: int = 5):
    """Examples of several lengths, so that rows are padded on both sides."""
    task = load_task("arith-shift")
    found = [method.render(example, task) for example in task.examples("train", count)]
    assert len({len(p.before) for p in found}) > 1
    assert len({len(p.target) for p in found}) > 1
    return found


def gradients(method: MeanRead, paths: int = 1) -> tuple[float, list[torch.Tensor]]:
    """The likelihood and its gradients, in float64."""
    method.zero_grad()
    batch = prompts(method)
    loss = method.likelihood(batch, method.think(batch, paths=paths)).mean()
    loss.backward()
    return loss.item(), [p.grad.clone() for p in method.read.parameters() if p.grad is not None]


@pytest.mark.parametrize("paths", [1, 2])
@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_behind_a_cached_prompt_are_the_same(tiny, family, paths):
    method = MeanRead(tiny(family))
    loss, plain = gradients(method, paths)
    with checkpointed(method.backbone.model):
        again, found = gradients(method, paths)
    assert again == pytest.approx(loss, abs=1e-12)
    for one, other in zip(plain, found, strict=True):
        assert one.abs().max() > 1e-3
        torch.testing.assert_close(other, one, rtol=0, atol=1e-12)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_through_a_growing_cache_are_the_same(tiny, family):
    """Each thought is the state at the one before: gradients run through the keys and values of all steps."""
    backbone = tiny(family).double()

    def unrolled() -> tuple[torch.Tensor, torch.Tensor]:
        first = torch.linspace(-1, 1, 2 * 3 * backbone.width, dtype=torch.float64).view(2, 3, -1).requires_grad_()
        mask = torch.ones(2, 3, dtype=torch.bool)
        out = backbone.run(first, mask)
        for _ in range(3):
            assert out.hidden is not None
            mask = torch.cat([mask, mask.new_ones(2, 1)], 1)
            last = torch.zeros(1, dtype=torch.long)
            out = backbone.run(out.hidden[:, -1:], mask, cache=out.cache, logits_at=last, hidden=True)
        assert out.hidden is not None
        assert out.logits is not None
        (out.logits.square().sum() + out.hidden.sum()).backward()
        assert first.grad is not None
        return out.logits.detach(), first.grad

    plain = unrolled()
    with checkpointed(backbone.model):
        found = unrolled()
    assert plain[1].abs().max() > 1e-3
    for one, other in zip(plain, found, strict=True):
        torch.testing.assert_close(other, one, rtol=1e-10, atol=1e-12)


def test_dropout_is_drawn_again_as_it_was(tiny):
    backbone = tiny("gpt2").double()
    backbone.model.train()
    assert backbone.model.config.resid_pdrop > 0
    embeds = torch.linspace(-1, 1, 2 * 5 * backbone.width, dtype=torch.float64).view(2, 5, -1)

    def gradient(seed: int) -> torch.Tensor:
        torch.manual_seed(seed)
        given = embeds.clone().requires_grad_()
        hidden = backbone.run(given, torch.ones(2, 5, dtype=torch.bool)).hidden
        assert hidden is not None
        hidden.square().sum().backward()
        assert given.grad is not None
        return given.grad

    plain = gradient(0)
    with checkpointed(backbone.model):
        torch.testing.assert_close(gradient(0), plain, rtol=1e-10, atol=1e-12)
        assert not torch.allclose(gradient(1), plain)  # another draw is another gradient


@pytest.mark.parametrize("family", ["qwen3", "llama"])
def test_layers_keep_little_more_than_their_inputs(tiny, family):
    backbone, layers = tiny(family), 2
    embeds = torch.randn(3, 40, backbone.width, requires_grad=True)
    cache = backbone.run(embeds.detach(), torch.ones(3, 40, dtype=torch.bool)).cache

    def run() -> torch.Tensor:
        hidden = backbone.run(embeds, torch.ones(3, 80, dtype=torch.bool), cache=cache).hidden
        assert hidden is not None
        return hidden

    plain = saved_bytes(backbone.model, run)
    cache.crop(-40)
    with checkpointed(backbone.model):
        found = saved_bytes(backbone.model, run)
    inputs = layers * embeds.numel() * 4
    assert inputs <= found < inputs + 2.5 * embeds.numel() * 4  # and the final norm's
    assert found < plain / 4


def test_what_is_kept_does_not_hold_the_grown_cache(tiny):
    """The keys and values of the new positions are computed again too: nothing else must keep them alive."""
    import gc
    import weakref

    backbone = tiny()
    embeds = torch.randn(1, 4, backbone.width, requires_grad=True)
    with checkpointed(backbone.model):
        out = backbone.run(embeds, torch.ones(1, 4, dtype=torch.bool))
        grown = [weakref.ref(layer.keys) for layer in out.cache.layers]
        hidden = out.hidden
        assert hidden is not None
        del out
        gc.collect()
        assert [ref() for ref in grown] == [None, None]
        hidden.sum().backward()
    assert embeds.grad is not None
    assert embeds.grad.abs().max() > 0


def test_without_gradients_and_afterwards_nothing_is_changed(tiny):
    backbone = tiny()
    layers = [module for module in backbone.modules() if isinstance(module, GradientCheckpointingLayer)]
    embeds, mask = torch.randn(2, 3, backbone.width), torch.ones(2, 3, dtype=torch.bool)
    with torch.no_grad():
        plain = backbone.run(embeds, mask)
        with checkpointed(backbone.model):
            assert all("forward" in vars(layer) for layer in layers)
            found = backbone.run(embeds, mask)
    assert plain.hidden is not None
    assert found.hidden is not None
    assert torch.equal(plain.hidden, found.hidden)
    for one, other in zip(plain.cache.layers, found.cache.layers, strict=True):
        assert torch.equal(one.keys, other.keys)
    with pytest.raises(RuntimeError, match="inside"), checkpointed(backbone.model):
        raise RuntimeError("inside")
    assert len(layers) == 2
    assert not any("forward" in vars(layer) for layer in layers)


def test_a_model_without_known_layers_is_refused():
    with (
        pytest.raises(ValueError, match=r"^Linear has no layers .*; train without training\.gradient_checkpointing$"),
        checkpointed(nn.Linear(2, 2)),
    ):
        pass


def test_training_ends_with_the_same_weights(tiny, tmp_path):
    task, settings = load_task("arith-shift"), {"examples": 16, "batch_size": 8, "probe_examples": 4}
    ends = []
    for choice in (False, True):
        method = MeanRead(tiny())
        config = TrainConfig(**settings, epochs=2, optimizer="adamw", gradient_checkpointing=choice)
        folder = train(method, task, config, tmp_path / str(choice))
        ends.append((method.read.weight.detach(), [row["loss"] for row in rows(folder)]))
    torch.testing.assert_close(ends[1][0], ends[0][0], rtol=0, atol=1e-9)
    assert ends[1][1] == pytest.approx(ends[0][1], abs=1e-6)
