"""Training moves a block's attention as fast on a wide backbone as on the shipped one, so that it is not lost."""

from dataclasses import replace

import pytest
import torch
from torch.nn import functional as F
from transformers import LlamaConfig, LlamaForCausalLM

import workbench as wb
from workbench.backbone import Backbone, pad
from workbench.experiments.pretrain import make_tokenizer
from workbench.methods import build
from workbench.methods.lta_thinker import LTAThinkerConfig
from workbench.methods.lta_thinker.generator import usual_heads
from workbench.training.optimizers import make_optimizers

OPTIMIZERS = {"adamw": {"optimizer": "adamw", "lr": 0.002}, "muon": {"lr": 0.02}}
OURS = LTAThinkerConfig(thoughts=2, focus_weight=0.0)
PUBLISHED = replace(OURS, heads=1, adamw_width=None)


def wide(width: int) -> Backbone:
    """One random layer; only what the generator reads is as wide as it says."""
    tokenizer = make_tokenizer()
    shape = {"intermediate_size": 64, "num_hidden_layers": 1, "num_attention_heads": 4, "num_key_value_heads": 1}
    with torch.random.fork_rng():
        torch.manual_seed(0)
        config = LlamaConfig(
            hidden_size=width, vocab_size=len(tokenizer), initializer_range=0.1, max_position_embeddings=256, **shape
        )
        return Backbone(LlamaForCausalLM(config).eval(), tokenizer, "wide")


def logits(method, prompts):
    """What the slots' attention is the softmax of, [row, slot, position, head]."""
    ids, _ = pad([method._question(p) for p in prompts], "left")
    inputs, own = method._inputs(ids, method.config.thoughts), method.block.self_attn
    q, k, _ = F.linear(inputs, own.in_proj_weight, own.in_proj_bias).chunk(3, -1)
    q, k = (x.unflatten(-1, (own.num_heads, -1)) for x in (q[:, -method.config.thoughts :], k))
    return torch.einsum("rshf,rphf->rsph", q, k) / q.shape[-1] ** 0.5


def trained(backbone, options, steps, optimizer, batch=4):
    """The method after some steps, and how far each has moved its logits from where they were (RMS)."""
    method, task, moved = build("lta-thinker", backbone, options), wb.load_task("arith-shift"), []
    prompts = [method.render(e, task) for e in task.examples("train", steps * batch)]
    optimizers = make_optimizers(method, wb.TrainConfig(muon_precision="float32", **OPTIMIZERS[optimizer]))
    with torch.no_grad():
        start = logits(method, prompts[:batch])
    for k in range(steps):
        method.zero_grad()
        method.loss(prompts[k * batch :][:batch]).total.backward()
        torch.nn.utils.clip_grad_norm_([p for p in method.parameters() if p.requires_grad], 1.0)
        for one in optimizers:
            one.step()
        with torch.no_grad():
            moved.append(float((logits(method, prompts[:batch]) - start).square().mean().sqrt()))
    return method, moved


@pytest.mark.parametrize("optimizer", list(OPTIMIZERS))
def test_a_step_moves_attention_as_far_at_any_width(optimizer):
    moved = {width: trained(wide(width), OURS, 1, optimizer)[1][0] for width in (128, 512)}
    assert 0.5 < moved[512] / moved[128] < 2
    if optimizer == "adamw":
        far = trained(wide(512), PUBLISHED, 1, optimizer)[1][0]
        assert far > 5 * moved[128]  # the fault: by 4 for the rate, and by 2 for the one wide head


def positions(method):
    """How many positions a slot attends to: the exponential of its attention's entropy, mean over slots and heads."""
    task = wb.load_task("arith-shift")
    with torch.no_grad():
        weights = [logits(method, [method.render(e, task)]).softmax(2) for e in task.examples("dev", 8)]
    return float(torch.cat([-(w.clamp_min(1e-12).log() * w).sum(2).flatten() for w in weights]).mean().exp())


def test_a_wide_block_still_looks_around_where_the_published_one_stares():
    """The fault as it shows on a real model: in a few steps of AdamW each slot attends to one position alone."""
    narrow = positions(trained(wide(128), OURS, 4, "adamw")[0])
    backbone = wide(512)
    assert positions(build("lta-thinker", backbone, PUBLISHED)) > 15
    assert positions(trained(backbone, PUBLISHED, 4, "adamw")[0]) < 2.5
    assert positions(trained(backbone, OURS, 4, "adamw")[0]) > 0.7 * narrow > 6


def test_on_the_shipped_model_nothing_differs():
    backbone = Backbone.load("nano")
    ours, published = (build("lta-thinker", backbone, options) for options in (OURS, PUBLISHED))
    assert ours.block.self_attn.num_heads == 1
    for name, _ in ours.named_parameters():
        assert ours.pace(name) == published.pace(name) == 1
    (one,) = make_optimizers(ours, wb.TrainConfig(optimizer="adamw", lr=0.01))
    assert [group["peak"] for group in one.param_groups] == [0.01]


def test_rates_and_heads_by_width():
    assert {width: usual_heads(width) for width in (32, 128, 576, 896, 1024, 4096)} == {
        32: 1, 128: 1, 576: 4, 896: 7, 1024: 8, 4096: 32,
    }  # fmt: skip
    backbone = wide(512)
    method = build("lta-thinker", backbone, OURS)
    assert method.block.self_attn.num_heads == 4
    (adamw,) = make_optimizers(method, wb.TrainConfig(optimizer="adamw", lr=0.01))
    names = {id(p): name for name, p in method.named_parameters()}
    rates = {names[id(p)]: group["peak"] for group in adamw.param_groups for p in group["params"]}
    assert rates.keys() == {name for name, p in method.named_parameters() if p.requires_grad}
    slow = {name for name, rate in rates.items() if rate == 0.0025}
    assert slow == {
        "block.self_attn.in_proj_weight", "block.self_attn.out_proj.weight", "block.linear1.weight",
        "block.linear2.weight", "projection.weight",
    }  # fmt: skip
    assert {rate for name, rate in rates.items() if name not in slow} == {0.01}
    assert LTAThinkerConfig.reference().heads == 1
    assert LTAThinkerConfig.reference().adamw_width is None
    with pytest.raises(ValueError, match="adamw_width is 0; give a number from 1"):
        LTAThinkerConfig(adamw_width=0)
