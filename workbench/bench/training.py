"""Speed of a training step: as the published scripts shape it, with each shortcut added in turn, and the floor below.

A step here is forward and backward of the likelihood behind LTA-Thinker's thoughts on one batch; optimisers, which cost
the same in all, are timed by themselves (`optimizers`). Every rung computes the same gradients, which is checked before
anything is timed.

    reference        thoughts example by example, rows right-padded to the longest of a random batch, logits at every
                     position, the gradient carried back through all of them
    batched          thoughts of the batch at once
    prefix           what stands before the thoughts without gradients, logits where some row has a label
    labels           logits at labels alone, a piece at a time
    sorted           batches of like lengths
    packed           rows one behind the other, no padding (see workbench/backbone/packing.py)
    constant, full   the prefix cache (see workbench/backbone/prefixes.py); "full" from the second epoch on
    compiled         as constant, with layers that torch.compile has fused; only when asked for

    floor = the larger of FLOPs of real tokens / rate of matrix products of the step's own shapes
                      and bytes of the weights, read forwards and backwards / copy rate
"""

import random
from collections.abc import Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from functools import partial
from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F

from ..backbone import Backbone, pad
from ..backbone.packing import compiled
from ..backbone.prefixes import Mode, Prefixes
from ..methods import LatentMethod, Prompt, build
from ..methods.lt_tuning import LTTuning, LTTuningConfig
from ..methods.lta_thinker import LTAThinkerConfig
from ..tasks import Example
from ..training.plan import TrainConfig, batches
from .machine import Timer, alternating, copy_rate, matrix_rate


@dataclass(frozen=True)
class Shape:
    """Lengths of invented prompts in tokens: a constant instruction, then a question and a target that vary."""

    constant: int = 90
    question: int = 180
    target: int = 210
    thoughts: int = 4

    def prompts(self, backbone: Backbone, count: int, seed: int = 0) -> list[Prompt]:
        """Random tokens; lengths vary by a third around the means, as those of GSM8K do."""
        rng, chance = random.Random(seed), torch.Generator().manual_seed(seed)

        def ids(mean: int, vary: bool = True) -> Tensor:
            length = max(2, round(rng.gauss(mean, mean / 3))) if vary else mean
            return torch.randint(6, len(backbone.table), (length,), generator=chance)

        start, made = ids(self.constant, vary=False), []
        for number in range(count):
            question, target = ids(self.question), ids(self.target)
            example = Example(f"e{number}", "invented", (), "0")
            made.append(
                Prompt(example, torch.cat([start, question]), start[:5], target, question, (target,), target[-1:])
            )
        return made


@dataclass(frozen=True)
class Rung:
    """One way of computing the step."""

    name: str
    sorted: bool = False
    prefix: Mode | None = None  # None: as the published scripts do, see `reference_loss`
    full_logits: bool = True
    padded: bool = True
    batched: bool = True
    compiled: bool = False


RUNGS = (
    Rung("reference", batched=False),
    Rung("batched"),
    Rung("prefix", prefix="off"),
    Rung("labels", prefix="off", full_logits=False),
    Rung("sorted", True, "off", False),
    Rung("packed", True, "off", False, False),
    Rung("constant", True, "constant", False, False),
    Rung("full", True, "full", False, False),
)
COMPILED = Rung("compiled", True, "constant", False, False, compiled=True)
BEST = "constant"  # the default of training


def reference_loss(method: LatentMethod, prompts: Sequence[Prompt], batched: bool) -> Tensor:
    """The likelihood as the published scripts shape it, restated plainly: one row per example, all of it at once."""
    backbone = method.backbone
    thoughts = method.think(prompts).vectors[:, 0] if batched else None
    rows, labels = [], []
    for number, p in enumerate(prompts):
        own = method.think([p]).vectors[0, 0] if thoughts is None else thoughts[number]
        parts = [backbone.embed(p.before), own.to(backbone.table.dtype), backbone.embed(p.after)]
        row = torch.cat([*parts, backbone.embed(p.target)])
        rows.append(row)
        labels.append(torch.cat([torch.full((len(row) - len(p.target),), -100), p.target]))
    embeds, mask = pad(rows, "right")
    wanted = torch.nn.utils.rnn.pad_sequence(labels, batch_first=True, padding_value=-100).to(backbone.device)
    logits = backbone.model(inputs_embeds=embeds.requires_grad_(), attention_mask=mask.long(), use_cache=False).logits
    losses = F.cross_entropy(logits[:, :-1].float().transpose(1, 2), wanted[:, 1:], reduction="none")
    return (losses.sum(1) / (wanted[:, 1:] != -100).sum(1)).mean()


def step(method: LatentMethod, prompts: Sequence[Prompt], rung: Rung) -> Tensor:
    """Forward and backward; the loss."""
    method.zero_grad()
    if rung.prefix is None:
        loss = reference_loss(method, prompts, rung.batched)
    else:
        method.backbone.full_logits, method.backbone.padded = rung.full_logits, rung.padded
        loss = method.likelihood(prompts, method.think(prompts)).mean()
    loss.backward()
    return loss.detach()


def flops(method: LatentMethod, prompts: Sequence[Prompt], rung: Rung, shape: Shape) -> float:
    """Floating-point operations that the step cannot do without, real tokens only.

    Two per weight and token forwards, as many for the gradient of the inputs (the backbone's weights have none), four
    for the generator's; attention four per feature and pair of positions forwards, half of that where it is causal, and
    backwards as many again for queries and weights, and again for keys and values, which a prefix does not need.
    """
    backbone, model = method.backbone, method.backbone.model
    head = model.get_output_embeddings().weight.numel()
    tables = {id(p) for p in (model.get_input_embeddings().weight, model.get_output_embeddings().weight)}
    layers = sum(p.numel() for p in model.parameters() if id(p) not in tables and p.ndim == 2)
    own = sum(p.numel() for p in method.parameters() if p.requires_grad and p.ndim == 2)
    config = model.config
    size = getattr(config, "head_dim", None) or backbone.width // config.num_attention_heads
    pair = 4 * size * config.num_attention_heads * config.num_hidden_layers
    total = 0.0
    for p in prompts:
        known = len(p.before)
        read = {"full": 0, "constant": known - shape.constant}.get(rung.prefix or "", known)
        behind = shape.thoughts + len(p.after) + len(p.target) - 1
        total += 2 * layers * read + pair * read * (known - read / 2)
        total += 4 * layers * behind + pair * behind * (2 * known + 3 * behind / 2)
        total += 4 * head * len(p.target) + 6 * own * (len(p.question) + 1 + shape.thoughts)
    return total


def training(
    backbone: Backbone,
    shape: Shape,
    *,
    batch_size: int = 8,
    repeats: int = 5,
    seed: int = 0,
    timer: Timer = "wall",
    compile: bool = False,
) -> dict[str, Any]:
    """Seconds per step of each rung (median and quartiles of alternating epochs of four batches), their ratios."""
    options = LTAThinkerConfig(thoughts=shape.thoughts, alignment="none", focus_weight=0.0)
    method = build("lta-thinker", backbone, options)
    prompts = shape.prompts(backbone, 4 * batch_size, seed)
    config = TrainConfig(batch_size=batch_size, seed=seed)
    by_length = [[prompts[i] for i in places] for places in batches(prompts, config, "0 0")]
    order = random.Random(seed).sample(prompts, len(prompts))
    at_random = [order[k : k + batch_size] for k in range(0, len(order), batch_size)]
    cuts = {True: by_length, False: at_random}
    rungs = (*RUNGS, COMPILED) if compile else RUNGS
    kept = {rung.name: Prefixes(rung.prefix or "off", 1e3) for rung in rungs}
    before = backbone.prefixes, backbone.padded, backbone.full_logits

    def epoch(rung: Rung) -> None:
        backbone.prefixes = kept[rung.name]
        with compiled(backbone.model) if rung.compiled else nullcontext():
            for batch in cuts[rung.sorted]:
                step(method, batch, rung)

    try:
        difference = _check(method, at_random[0], rungs, kept)
        # the first round, which is not counted, fills the caches
        rows = alternating({rung.name: partial(epoch, rung) for rung in rungs}, repeats, backbone.device, timer)
    finally:
        backbone.prefixes, backbone.padded, backbone.full_logits = before
    rows = {name: {key: value / len(by_length) for key, value in row.items()} for name, row in rows.items()}
    tokens = round(sum(len(p.target) + len(p.after) + shape.thoughts for p in prompts) / len(by_length))
    rate = matrix_rate(backbone.device, backbone.table.dtype, (tokens, backbone.width, _inner(backbone)))
    bytes_floor = 2 * sum(p.nbytes for p in backbone.model.parameters()) / copy_rate(backbone.device)
    least = {
        rung.name: sum(flops(method, batch, rung, shape) for batch in by_length) / len(by_length) for rung in rungs
    }
    for name, row in rows.items():
        row["speedup"] = rows["reference"]["median"] / row["median"]
        row["floor"] = max(least[name] / rate, bytes_floor)
        row["over_floor"] = row["median"] / row["floor"]
    more = {f"{key}_compiled": rows["compiled"][key] for key in ("speedup", "over_floor")} if compile else {}
    return {
        "speedup": rows[BEST]["speedup"],
        "speedup_full": rows["full"]["speedup"],
        "over_floor": rows[BEST]["over_floor"],
        **more,
        "largest_difference": difference,
        "matrix_rate": rate,
        "bytes_floor": bytes_floor,
        "batch_size": batch_size,
        "repeats": repeats,
        "timer": timer,
        "shape": vars(shape),
        "rungs": rows,
    }


def _check(method: LatentMethod, batch: Sequence[Prompt], rungs: Sequence[Rung], kept: dict[str, Prefixes]) -> float:
    """The largest relative difference of gradients from the reference's; ValueError where it is no rounding."""
    found = []
    for rung in rungs:
        method.backbone.prefixes = kept[rung.name]
        with compiled(method.backbone.model) if rung.compiled else nullcontext():
            for _ in range(2):  # what is kept is read the second time
                step(method, batch, rung)
        found.append(torch.cat([p.grad.flatten().float() for p in method.parameters() if p.grad is not None]))
    worst = max(float((other - found[0]).norm() / found[0].norm()) for other in found[1:])
    allowed = 1e-3 if method.backbone.table.dtype == torch.float32 else 0.1
    if not worst < allowed:
        raise ValueError(f"gradients of the rungs differ by {worst:.2g} of their size, at most {allowed:g} is rounding")
    return worst


def _inner(backbone: Backbone) -> int:
    return getattr(backbone.model.config, "intermediate_size", None) or 4 * backbone.width


def training_thoughts(
    backbone: Backbone, shape: Shape, *, batch_size: int = 16, repeats: int = 5, seed: int = 0, timer: Timer = "wall"
) -> dict[str, Any]:
    """Seconds of a step of LT-Tuning over those of plain fine-tuning on the same rows, and what they are spent on.

    plain: rows without marks. longer: with as many words in the place of the marks, read at once: what longer rows
    cost. thoughts: the marks' inputs are made, each from a pass that goes on from the one before: `passes` of them,
    one more than the most thoughts that a row has, where plain fine-tuning has one.
    """
    options = LTTuningConfig(placement="random", cap_fusion=shape.thoughts, insert_fusion=1.0, again_fusion=0.0)
    method = build("lt-tuning", backbone, options)
    assert isinstance(method, LTTuning)
    last, prompts = len(method.stages()) - 1, shape.prompts(backbone, batch_size, seed)
    marked = list(method.start(last, prompts))
    words = [replace(p, target=p.target.masked_fill(p.target == method.mark, 6)) for p in marked]
    counts = [int((p.target == method.mark).sum()) for p in marked]

    def step(rows: Sequence[Prompt]) -> None:
        method.zero_grad()
        method.loss(rows, last).total.backward()

    ways = {"plain": prompts, "longer": words, "thoughts": marked}
    rungs = alternating({name: partial(step, rows) for name, rows in ways.items()}, repeats, backbone.device, timer)
    return {
        "over_plain": rungs["thoughts"]["median"] / rungs["plain"]["median"],
        "over_longer": rungs["thoughts"]["median"] / rungs["longer"]["median"],
        "passes": 1 + max(counts),
        "batch_size": batch_size,
        "repeats": repeats,
        "timer": timer,
        "shape": vars(shape),
        "rungs": rungs,
    }
