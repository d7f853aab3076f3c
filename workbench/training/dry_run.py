"""What a training would do and need, before it starts: steps, stops, lengths, memory. Nothing is trained or written.

No weight is looked at either, so a backbone without weights (`Backbone.load(..., weights=False)`) will do, of any size.

Memory of one process, in bytes. Exactly, from shapes and precisions:

    weights       of everything frozen, and of what is trained
    gradients     as much as what is trained; twice that with several processes, which exchange copies
    optimiser     AdamW two moments of what it trains and a counter per tensor, Muon one moment

Estimated, for that piece of a batch which needs most, in a frozen Llama or Qwen (GPT-2 keeps about a quarter more) of L
layers, width D, H heads and K key-value heads of size d, inner width I and V words, with s bytes per number. The piece
has B rows (one for each path that is trained) of P columns before the slot, which carry no gradient, and T from it on,
thoughts not counted; N of them have logits. Where the backbone itself is trained, P is 0 and T all there is:

    cache         2 L B P K d s                                 keys and values of the prompt
    layer         B T (8 D + 3 I s + 2 H d s [+ 4 (H + K) d])   norms in float32, gate and up, queries and output; the
                                                                bracket where queries and keys are normed (Qwen3)
                  + 2 B (P + T) H d s + B T (P + T) s           keys and values repeated to all heads, the mask
    activations   L layer, or with gradient checkpointing L B T D s + layer
    logits        B N V (s + 8)                                 as they come, in float32, and as log-probabilities;
                  min(4 B N V, 64 MiB) 2                        a piece at a time, where the head gives them alone

With `prefix_cache=full` each process also fills RAM with keys and values of all prefixes, 2 L K d s per token, as far
as its budget goes.

What the method keeps for its own part, CUDA's own share (about 0.5 GiB) and fragmentation come on top.
"""

import os
from collections.abc import Callable, Sequence
from dataclasses import astuple, dataclass
from itertools import groupby

import torch
from torch import Tensor

from ..backbone import Backbone
from ..backbone.label_losses import PIECE, is_plain
from ..methods import LatentMethod, Prompt
from ..tasks import Task
from .optimizers import make_optimizers
from .plan import Step, TrainConfig, batches, cut, make_plan, probes, saves


@dataclass(frozen=True)
class Kept:
    """Bytes that stay for the whole of training."""

    frozen: int
    trained: int
    gradients: int
    optimizer: int


@dataclass(frozen=True)
class Piece:
    """Rows that go through the backbone at once; their columns before the slot, from it on, and with logits."""

    rows: int
    prefix: int
    columns: int
    logits: int


@dataclass(frozen=True)
class Passing:
    """Bytes of one forward and backward pass."""

    cache: int
    activations: int
    logits: int


@dataclass(frozen=True)
class Course:
    """What happens to the examples.

    checkpoints, probes: numbers of the steps that end with them. prompt, target: tokens on average and at most.
    prefixes: tokens of all prefixes that differ. piece: what needs most memory.
    """

    examples: int
    plan: tuple[Step, ...]
    checkpoints: tuple[int, ...]
    probes: tuple[int, ...]
    prompt: tuple[float, int]
    target: tuple[float, int]
    prefixes: int
    piece: Piece


@dataclass(frozen=True)
class DryRun:
    """What was found out; `str()` of it is the report. Without examples `course` is None and `complaint` says why."""

    method: LatentMethod
    config: TrainConfig
    processes: int
    kept: Kept
    course: Course | None
    complaint: str = ""

    def __str__(self) -> str:
        return "\n".join(f"{name:12}{line}" for name, line in _report(self))


def dry_run(method: LatentMethod, task: Task, config: TrainConfig) -> DryRun:
    """What `train(method, task, config, folder)` would do and need, in as many processes as are wanted or launched."""
    processes = config.processes or int(os.environ.get("WORLD_SIZE", "1"))
    kept = memory_kept(method, config, processes)
    try:
        examples = task.examples("train", config.examples)
        task.examples("dev", config.probe_examples)
    except (ValueError, OSError) as error:
        return DryRun(method, config, processes, kept, None, str(error))
    prompts = [method.render(example, task) for example in examples]
    plan = make_plan(method, config, len(prompts))

    def numbers(rule: Callable[[int, int, TrainConfig], bool]) -> tuple[int, ...]:
        return tuple(step.number for step in plan if rule(step.number, len(plan), config))

    course = Course(
        examples=len(prompts),
        plan=tuple(plan),
        checkpoints=numbers(saves),
        probes=numbers(probes),
        prompt=_mean_and_largest([len(p.before) + len(p.after) for p in prompts]),
        target=_mean_and_largest([len(p.target) for p in prompts]),
        prefixes=sum(map(len, {tuple(p.before.tolist()) for p in prompts})),
        piece=largest_piece(method, prompts, plan, config, processes),
    )
    return DryRun(method, config, processes, kept, course)


# -- memory ----------------------------------------------------------------------------------------------------------


def memory_kept(method: LatentMethod, config: TrainConfig, processes: int = 1) -> Kept:
    """What weights, gradients and optimisers take, exactly."""
    trained = sum(_bytes(p) for p in method.parameters() if p.requires_grad)
    frozen = sum(_bytes(p) for p in method.parameters() if not p.requires_grad)
    frozen += sum(_bytes(buffer) for buffer in method.buffers())
    optimizer = 0
    for one in make_optimizers(method, config):
        parameters = [p for group in one.param_groups for p in group["params"]]
        sizes = sum(_bytes(p) for p in parameters)
        optimizer += sizes if isinstance(one, torch.optim.Muon) else 2 * sizes + 4 * len(parameters)
    return Kept(frozen, trained, trained * (1 if processes == 1 else 2), optimizer)


def memory_passing(backbone: Backbone, piece: Piece, checkpointing: bool, full_logits: bool = False) -> Passing:
    """What a piece of a batch takes on its way, by the formulas above."""
    config = backbone.model.config.get_text_config(decoder=True)
    shape, layers, heads = config.to_dict(), config.num_hidden_layers, config.num_attention_heads
    grouped = shape.get("num_key_value_heads") or heads
    size = shape.get("head_dim") or backbone.width // heads
    inner = shape.get("intermediate_size") or 4 * backbone.width  # GPT-2 leaves it unsaid
    normed = any(name.endswith("q_norm") for name, _ in backbone.model.named_modules())
    precision, keys = backbone.table.element_size(), piece.prefix + piece.columns
    cells = piece.rows * piece.columns
    layer = cells * (8 * backbone.width + 3 * inner * precision + 2 * heads * size * precision)
    layer += cells * 4 * (heads + grouped) * size * normed
    layer += 2 * piece.rows * keys * heads * size * precision + cells * keys * precision
    inputs = layers * cells * backbone.width * precision
    logits = piece.rows * piece.logits * len(backbone.table)
    pieces = is_plain(backbone.model.get_output_embeddings(), config) and not full_logits
    return Passing(
        cache=piece.rows * piece.prefix * backbone.bytes_per_token,
        activations=inputs + layer if checkpointing else layers * layer,
        logits=2 * min(4 * logits, PIECE) if pieces else logits * (precision + 8),
    )


def largest_piece(
    method: LatentMethod, prompts: Sequence[Prompt], plan: Sequence[Step], config: TrainConfig, processes: int
) -> Piece:
    """The piece of all batches of all epochs that needs most memory."""
    pieces: set[Piece] = set()
    for (stage, epoch), steps in groupby(plan, lambda step: (step.stage, step.epoch)):
        order = batches(prompts, config, f"{stage} {epoch}")
        for batch in ([prompts[i] for i in order[step.place]] for step in steps):
            shares = (cut(batch, rank, processes, config.micro_batch) for rank in range(processes))
            pieces |= {measured(method, piece) for share in shares for piece in share if piece}

    def need(piece: Piece) -> int:
        way = memory_passing(method.backbone, piece, config.gradient_checkpointing, config.full_logits)
        return sum(astuple(way))

    return max(pieces, key=need)


def measured(method: LatentMethod, prompts: Sequence[Prompt]) -> Piece:
    """The shape of a padded piece: the last token of a target is predicted, not read."""
    target, prefix = max(len(p.target) for p in prompts), max(len(p.before) for p in prompts)
    columns, rows = max(len(p.after) + len(p.target) - 1 for p in prompts), len(prompts) * method.trained_paths
    return Piece(rows, 0, prefix + columns, target) if method.backbone.trains else Piece(rows, prefix, columns, target)


def _bytes(tensor: Tensor) -> int:
    return tensor.numel() * tensor.element_size()


# -- the report ------------------------------------------------------------------------------------------------------


def _report(found: DryRun) -> list[tuple[str, str]]:
    """The lines of the report and what each is about."""
    method, backbone, course = found.method, found.method.backbone, found.course
    count, precision = sum(p.numel() for p in backbone.parameters()), str(backbone.table.dtype).removeprefix("torch.")
    shape = f"{backbone.model.config.get_text_config(decoder=True).num_hidden_layers} layers of width {backbone.width}"
    lines = [
        ("backbone", f"{backbone.name}: {count:,} parameters in {precision}, {shape}"),
        ("method", f"{method.name}: {method.trainable_parameters:,} trainable parameters"),
    ]
    if course is not None:
        per_epoch = 1 + max(step.place for step in course.plan)
        lines += [
            ("examples", f"{course.examples:,}, {found.config.batch_size} per step"),
            ("steps", f"{len(course.plan):,}, {per_epoch:,} per epoch"),
            *(("stage", _stage(index, stage.name, course.plan)) for index, stage in enumerate(method.stages())),
            ("checkpoints", _some(course.checkpoints)),
            ("probes", _some(course.probes)),
            ("prompt", f"{course.prompt[0]:.1f} tokens on average, {course.prompt[1]} at most"),
            ("target", f"{course.target[0]:.1f} tokens on average, {course.target[1]} at most"),
        ]
    return lines + [("memory", line) for line in _memory(found)]


def _memory(found: DryRun) -> list[str]:
    kept, course = found.kept, found.course
    where = f"in each of {found.processes} processes" if found.processes > 1 else "in one process"
    lines = [
        f"{_size(kept.frozen)}  frozen weights",
        f"{_size(kept.trained)}  trained weights",
        f"{_size(kept.gradients)}  gradients",
        f"{_size(kept.optimizer)}  optimiser",
    ]
    if course is None:
        return [*lines, f"{_size(sum(astuple(kept)))}  {where}, before any example"]
    piece, chosen = course.piece, found.config.gradient_checkpointing
    backbone, full = found.method.backbone, found.config.full_logits
    passing, other = (memory_passing(backbone, piece, choice, full) for choice in (chosen, not chosen))
    total, instead = (sum(astuple(kept)) + sum(astuple(way)) for way in (passing, other))
    turned = f"{_size(instead).strip()} {'without' if chosen else 'with'} gradient checkpointing"
    shape = f"{piece.rows} rows of {piece.prefix} + {piece.columns} columns"
    lines += [
        f"{_size(passing.cache)}  cache of the prompts",
        f"{_size(passing.activations)}  activations, about ({shape})",
        f"{_size(passing.logits)}  logits, about",
        f"{_size(total)}  {where}, about ({turned})",
    ]
    if found.config.prefix_cache == "full" and not backbone.trains:
        size, budget = _size(course.prefixes * backbone.bytes_per_token), found.config.prefix_cache_gib
        lines.append(f"{size}  all prefixes, kept in RAM as far as {budget:g} GiB go")
    return lines


def _stage(index: int, name: str, plan: Sequence[Step]) -> str:
    numbers = [step.number for step in plan if step.stage == index]
    return f"{name}: steps {numbers[0]:,} to {numbers[-1]:,}"


def _some(numbers: Sequence[int]) -> str:
    """The numbers, or where they are many the first three and the last."""
    shown = [str(number) for number in numbers]
    listed = ", ".join(shown if len(shown) < 6 else [*shown[:3], "...", shown[-1]])
    return f"{len(numbers):,}, after step{'s' * (len(numbers) != 1)} {listed}"


def _mean_and_largest(lengths: Sequence[int]) -> tuple[float, int]:
    return sum(lengths) / len(lengths), max(lengths)


def _size(count: int) -> str:
    unit, name = (2**30, "GiB") if count >= 2**30 else (2**20, "MiB")
    return f"{count / unit:8.2f} {name}"
