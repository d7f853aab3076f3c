"""What training will do, before it does it: its settings, every step, and who computes which examples.

Batches depend on (seed, epoch) only, so every process and every resumed run finds the same ones.
"""

import math
import random
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from .. import plugins
from ..backbone.prefixes import Mode
from ..config import SEEDS, allowed, bounded, differences
from ..methods import LatentMethod, Prompt, Stage
from ..runs import describe_method
from ..tasks import Task

LONGEST = 10_000_000  # steps; the plan of a run holds each of them


@dataclass(frozen=True)
class TrainConfig:
    """How a method is trained."""

    seed: int = 0
    """Seed of the weights and of the order of examples."""
    examples: int | None = 2000
    """Training examples used (the first of the split); None for all."""
    epochs: int = 6
    """Passes over them."""
    batch_size: int = 32
    """Examples per optimiser step, over all processes."""
    micro_batch: int | None = None
    """Examples per forward pass and process; smaller ones save memory. Losses that are means over examples, the default
    of every method, do not change. None: no cutting."""
    gradient_checkpointing: bool = False
    """Compute the backbone's activations again in the backward pass instead of keeping them: less memory, about a third
    more time, the same gradients."""
    prefix_cache: Mode = "constant"
    """What stands before the thoughts is read anew for each batch (off), but for the instruction that all of it begins
    with, which is read once (constant), or once in all and kept in RAM (full). Always off for a backbone that is
    trained, that is sharded, or whose attention is of another kind than Qwen's. Rounding aside the same numbers."""
    prefix_cache_gib: float = 4.0
    """RAM of each process for prefix_cache=full; prefixes that do not fit are read again in every epoch."""
    compile: bool = False
    """Let torch.compile fuse what stands between the matrix products of packed rows, which takes half a minute or more
    at first and a C++ compiler; `workbench bench training --compile` says what it gains. Rounding aside the same
    numbers."""
    padded: bool = False
    """Rows of a batch padded to one length, the plain way, instead of packed one behind the other; prefixes are then
    read anew for each batch. To check the other ways against. Rounding aside the same numbers."""
    full_logits: bool = False
    """Logits of all rows and target columns at once, the plain way, instead of at labels only and a piece at a time;
    rows are then padded. Rounding aside the same numbers."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the weight matrices (it orthogonalises their updates) and AdamW for the rest, or AdamW for all."""
    muon_precision: Literal["auto", "bfloat16", "float32"] = "auto"
    """Precision of Muon's matrix products: bfloat16 where the device has units for it, else float32 (auto); or the same
    on every machine."""
    lr: float = 0.02
    """Peak learning rate of Muon's matrices, or of everything under AdamW."""
    adamw_lr: float = 0.002
    """Peak learning rate of what AdamW trains beside Muon."""
    adamw_beta2: float = 0.999
    """How slowly AdamW forgets squared gradients; language models that learn from nothing often take 0.95."""
    warmup: float = 0.1
    """Share of steps over which learning rates rise; they fall linearly to zero afterwards."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""
    mixed_precision: Literal["no", "bf16"] = "no"
    """Autocast of the forward pass; trainable weights stay as they are."""
    processes: int | None = None
    """How many processes must have been launched; None takes what there is. (`accelerate launch --cpu
    --num_processes 2` starts one and says nothing.)"""
    begin: str | None = None
    """Weights to begin with: a finished run's folder or weights file of the same method, which may have been trained in
    other legs. What has the same name and shape is taken, all else is as it was made."""
    log_every: int = 1
    """Steps between rows of metrics.jsonl."""
    probe_every: int = 20
    """Steps between looks at the thoughts of the probe set (spread, effective rank, ...)."""
    probe_examples: int = 64
    """Size of the probe set, from the dev split."""
    probe_answers: int = 0
    """How many of the probe set's questions are answered at each look too, greedily (probe_accuracy); writing takes
    longer than looking."""
    save_every: int = 200
    """Steps between checkpoints."""
    snapshot_every: int | None = None
    """Steps between snapshots of the trainable weights, kept to look at thoughts over training (the untrained and the
    last weights are kept too); None keeps none."""

    def __post_init__(self) -> None:
        allowed(self)
        rates = dict.fromkeys(("lr", "adamw_lr", "prefix_cache_gib"), (0.0, math.inf))
        bounded(self, warmup=(0, 1), weight_decay=(0, 1e6), clip=(1e-9, math.inf), adamw_beta2=(0, 0.9999), **rates)
        bounded(self, probe_answers=(0, self.probe_examples))
        plain = [name for name in ("padded", "full_logits", "gradient_checkpointing") if getattr(self, name)]
        if self.compile and plain:
            raise ValueError(
                f"compile and {plain[0]} in the training settings: only packed layers are compiled; give one"
            )
        if self.prefix_cache == "full" and (self.padded or self.full_logits):
            raise ValueError(
                "prefix_cache=full and padded rows in the training settings: those are read anew; give one"
            )
        bounded(self, seed=SEEDS, **dict.fromkeys(("epochs", "log_every", "probe_every", "save_every"), (1, 1e9)))
        counts = ("examples", "epochs", "batch_size", "micro_batch", "processes")
        for name in (*counts, "log_every", "probe_every", "save_every", "snapshot_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} in the training settings: it must be at least 1")


@dataclass(frozen=True)
class Step:
    """One step of the plan: which batch of which epoch of which stage, and its learning rate over the peak one."""

    number: int
    stage: int
    epoch: int
    place: int
    rate: float


def make_plan(method: LatentMethod, config: TrainConfig, count: int) -> list[Step]:
    """Every step of training on `count` examples, in order; each stage has its own schedule unless it joins another."""
    stages = method.stages()
    if not stages:
        raise ValueError(f"method {method.name!r} has nothing to train; collect its answers right away")
    per_epoch = math.ceil(count / config.batch_size)
    if per_epoch * config.epochs > LONGEST:
        raise ValueError(
            f"{config.epochs} epochs of {per_epoch} steps are over the {LONGEST:,} that a run can have; give fewer"
        )
    lengths = [max(1, round(stage.share * config.epochs * per_epoch)) for stage in stages]
    plan: list[Step] = []
    start, lead = 0, stages[0]  # of the schedule: the step at which it began, and the stage
    for index, (stage, steps) in enumerate(zip(stages, lengths, strict=True)):
        if not (stage.joined and index):
            start, lead = len(plan), stage
        behind = next((k for k in range(index + 1, len(stages)) if not stages[k].joined), len(stages))
        total = len(plan) - start + sum(lengths[index:behind])
        warmup = config.warmup if lead.warmup is None else lead.warmup
        for step in range(steps):
            rate = stage.rate * schedule(len(plan) - start, total, warmup, lead.schedule)
            plan.append(Step(len(plan) + 1, index, step // per_epoch, step % per_epoch, rate))
    return plan


def saves(number: int, last: int, config: TrainConfig) -> bool:
    """Whether the step with this number ends with a checkpoint; `last` is the number of the last step."""
    return number % config.save_every == 0 or number == last


def logs(number: int, last: int, config: TrainConfig) -> bool:
    """Whether the step is a row of metrics.jsonl: before a checkpoint always, since logging finds a bad loss."""
    return number % config.log_every == 0 or saves(number, last, config)


def probes(number: int, last: int, config: TrainConfig) -> bool:
    """Whether the step's row looks at the probe set too."""
    return (number % config.probe_every == 0 or number == 1) and logs(number, last, config)


def keeps(number: int, last: int, config: TrainConfig) -> bool:
    """Whether the step with this number (0: before the first) ends with a snapshot."""
    return config.snapshot_every is not None and (number % config.snapshot_every == 0 or number == last)


def forgets(stage: Stage, step: Step) -> bool:
    """Whether optimisers begin anew before the step."""
    return step.place == 0 and (stage.fresh == "epoch" or (stage.fresh == "stage" and step.epoch == 0))


def setup(method: LatentMethod, task: Task, config: TrainConfig) -> dict[str, Any]:
    """What the run's config says: all that makes method, task and training again."""
    found = describe_method(method) | {"task": task.name, "data": task.source}
    if task.asked:
        found["prompts"] = task.asked
    if task.layout is not None:
        found["layout"] = differences(task.layout)
    if own := plugins.behind(type(method), task.name):
        found["plugins"] = own[0] if len(own) == 1 else own
    return found | {"training": differences(config)}


def batches(prompts: Sequence[Prompt], config: TrainConfig, epoch: str) -> list[list[int]]:
    """The batches of an epoch, as indices: shuffled, and sorted by length within groups of eight batches."""
    rng = random.Random(f"{config.seed} {epoch}")
    order = rng.sample(range(len(prompts)), len(prompts))
    cuts: list[list[int]] = []
    for start in range(0, len(order), 8 * config.batch_size):
        group = sorted(
            order[start : start + 8 * config.batch_size], key=lambda i: len(prompts[i].before) + len(prompts[i].target)
        )
        cuts += [group[k : k + config.batch_size] for k in range(0, len(group), config.batch_size)]
    return rng.sample(cuts, len(cuts))


def cut(batch: list[Prompt], rank: int, world: int, micro: int | None) -> list[list[Prompt]]:
    """The share of one of `world` processes, in pieces of at most `micro`; sizes differ by at most one.

    Every process gets the same number of pieces, at least one, since sharded processes meet in each forward pass; a
    piece is empty where there are fewer examples than pieces.
    """
    share = batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]
    largest = math.ceil(len(batch) / world)
    count = 1 if micro is None else math.ceil(largest / micro)
    return [share[len(share) * k // count : len(share) * (k + 1) // count] for k in range(count)]


def schedule(step: int, steps: int, warmup: float, shape: Literal["linear", "cosine", "constant"] = "linear") -> float:
    """The share of the peak learning rate: a linear rise, then a fall to zero, linear or as half a cosine, or none."""
    rise = max(1, round(warmup * steps))
    left = min(1.0, (steps - step) / max(1, steps - rise))
    falls = {"linear": left, "cosine": (1 - math.cos(math.pi * left)) / 2, "constant": 1.0}
    return min((step + 1) / rise, falls[shape])
