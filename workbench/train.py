"""The one training loop: any method, any task, one process or many (accelerate).

Losses are means over examples, so a global batch cut into any micro-batches on any number of ranks has one gradient:
each piece counts by its number of examples. Batches depend on (seed, epoch) only.
"""

import json
import math
import random
import signal
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import torch
from accelerate import Accelerator
from torch import Tensor, nn
from tqdm import tqdm

from . import runs
from .config import differences
from .diagnostics import probe
from .files import read_jsonl, whole, write_json, write_text
from .methods import LatentMethod, Prompt
from .tasks import Task


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
    """Examples per forward pass and process; smaller ones save memory and change nothing else. None: no cutting."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon orthogonalises the updates of weight matrices (vectors and learned inputs stay with AdamW); or AdamW for all."""
    lr: float = 0.02
    """Peak learning rate of Muon's matrices, or of everything under AdamW."""
    adamw_lr: float = 0.002
    """Peak learning rate of what AdamW trains beside Muon."""
    warmup: float = 0.1
    """Share of steps over which learning rates rise; they fall linearly to zero afterwards."""
    weight_decay: float = 0.0
    """Decoupled weight decay."""
    clip: float = 1.0
    """Largest norm of the whole gradient."""
    mixed_precision: Literal["no", "bf16", "fp16"] = "no"
    """Autocast of the forward pass; trainable weights stay as they are."""
    log_every: int = 1
    """Steps between rows of metrics.jsonl."""
    probe_every: int = 20
    """Steps between looks at the thoughts of the probe set (spread, effective rank, ...)."""
    probe_examples: int = 64
    """Size of the probe set, from the dev split."""
    save_every: int = 200
    """Steps between checkpoints."""


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says at which step and where the last good checkpoint is."""


def train(method: LatentMethod, task: Task, config: TrainConfig, folder: str | Path, *, resume: bool = False) -> Path:
    """Train `method` in place; return the run's folder with metrics, weights, checkpoint and result.json.

    `resume=True` goes on from the folder's checkpoint and ends as if never stopped. Ctrl-C finishes the step, saves and
    says how to resume.
    """
    folder = Path(folder)
    stages = method.stages()
    if not stages:
        raise ValueError(f"method {method.name!r} has nothing to train; collect its answers right away")
    if not resume and (folder / "metrics.jsonl").exists():
        raise ValueError(f"{folder} holds a run already; resume it, or give another folder")
    accelerator = Accelerator(mixed_precision=config.mixed_precision)
    main = accelerator.is_main_process
    prompts = [method.render(example, task) for example in task.examples("train", config.examples)]
    probes = [method.render(example, task) for example in task.examples("dev", config.probe_examples)]
    setup = runs.describe_method(method) | {"task": task.name, "data": task.source, "training": differences(config)}
    per_epoch = math.ceil(len(prompts) / config.batch_size)
    steps = [max(1, round(stage.share * config.epochs * per_epoch)) for stage in stages]

    optimizers = make_optimizers(method, config)
    model, *optimizers = accelerator.prepare(method, *optimizers)
    done = _restore(folder, method, optimizers, setup) if resume else 0
    if main:
        runs.write_config(folder, setup)
        _cut_metrics(folder, done)
    state = _State(accelerator, method, model, optimizers, config, folder, setup)
    started, first = time.time(), done
    with (
        _stop_softly() as stop,
        tqdm(total=sum(steps), initial=done, desc=f"train {method.name}", disable=not main) as bar,
    ):
        for index, stage in enumerate(stages):
            begin = sum(steps[:index])
            if done >= begin + steps[index]:
                continue
            method.start(index, prompts)
            for step in range(done, begin + steps[index]):
                epoch, place = divmod(step - begin, per_epoch)
                batch = [prompts[i] for i in batches(prompts, config, f"{index} {epoch}")[place]]
                for optimizer in optimizers:
                    for group in optimizer.param_groups:
                        group["lr"] = group["peak"] * schedule(step - begin, steps[index], config.warmup)
                row = state.step(batch, index)
                done = step + 1
                if done % config.log_every == 0 or done % config.save_every == 0 or done == sum(steps):
                    row = state.log(
                        row, done, index, (step - begin + 1) / per_epoch, time.time() - started, probes, bar
                    )
                if done % config.save_every == 0 or stop():
                    state.save(done)
                bar.update()
                if stop():
                    bar.close()
                    raise KeyboardInterrupt(
                        f"stopped after step {done}; go on with resume=True (workbench train --resume {folder})"
                    )
    state.save(done)
    if main:
        runs.save_weights(method, folder)
        seconds = time.time() - started
        trained = sum(p.numel() for p in method.parameters() if p.requires_grad)
        write_json(
            folder / "result.json",
            setup
            | {
                "steps": done,
                "trainable_parameters": trained,
                "seconds": round(seconds, 2),
                "world_size": accelerator.num_processes,
            }
            | {"seconds_per_step": seconds / max(1, done - first), "device": str(accelerator.device)}
            | {"final": read_jsonl(folder / "metrics.jsonl")[-1], **runs.provenance()},
        )
    accelerator.wait_for_everyone()
    return folder


@dataclass
class _State:
    """What a step of training needs: the live objects of one run."""

    accelerator: Accelerator
    method: LatentMethod
    model: nn.Module
    optimizers: Sequence[Any]
    config: TrainConfig
    folder: Path
    setup: dict[str, Any]

    def __post_init__(self) -> None:
        self.trained = [p for p in self.method.parameters() if p.requires_grad]
        self.warned: set[str] = set()

    def step(self, batch: list[Prompt], stage: int) -> dict[str, Any]:
        """One optimiser step; the returned tensors are still on the device and cover this process's share of the batch."""
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        pieces = cut(batch, world, self.config.micro_batch)
        mine = pieces[rank::world]
        sums: dict[str, Tensor] = {}
        warnings: dict[str, Tensor] = {}
        self.method.train()
        for number, piece in enumerate(mine):
            weight = len(piece) / len(batch)
            last = number + 1 == len(mine)
            with _nothing() if last else self.accelerator.no_sync(self.model):
                losses = self.model(piece, stage)
                # data-parallel wrappers average gradients over ranks: `world` turns that into the sum of the shares
                self.accelerator.backward(losses.total * weight * world)
            for name, value in {"loss": losses.total, **{f"loss_{k}": v for k, v in losses.parts.items()}}.items():
                sums[name] = sums.get(name, 0) + value.detach() * weight
            for sentence, flag in losses.warnings.items():
                warnings[sentence] = warnings.get(sentence, flag) & flag
        norm = self.accelerator.clip_grad_norm_(self.trained, self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {"sums": sums, "gradient_norm": norm, "warnings": warnings}

    def log(
        self, raw: dict[str, Any], done: int, stage: int, epoch: float, seconds: float, probes: list[Prompt], bar: tqdm
    ) -> None:
        """Write a row of metrics.jsonl; stop on a loss that is no number, before a checkpoint could hold it."""
        names = list(raw["sums"])
        values = self.accelerator.reduce(torch.stack([raw["sums"][n].float() for n in names]), "sum").tolist()
        row: dict[str, Any] = {"step": done, "epoch": round(epoch, 4), "stage": stage, "seconds": round(seconds, 3)}
        row |= dict(zip(names, values, strict=True)) | {"gradient_norm": float(raw["gradient_norm"])}
        row["lr"] = self.optimizers[0].param_groups[0]["lr"]
        if not all(math.isfinite(row[name]) for name in [*names, "gradient_norm"]):
            bad = next(name for name in [*names, "gradient_norm"] if not math.isfinite(row[name]))
            checkpoint = self.folder / "checkpoint.pt"
            kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
            raise TrainingFailed(
                f"{bad} is {row[bad]} at step {done}; {kept}; lower the learning rate or look at the data"
            )
        if done % self.config.probe_every == 0 or done == 1:
            row |= {f"probe_{name}": value for name, value in self.look(probes).items()}
        said = [sentence for sentence, flag in raw["warnings"].items() if bool(flag)]
        if said:
            row["warnings"] = said
        if self.accelerator.is_main_process:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            bar.set_postfix(loss=f"{row['loss']:.3f}")
            for sentence in set(said) - self.warned:
                bar.write(f"warning at step {done}: {sentence}")
            self.warned |= set(said)

    @torch.no_grad()
    def look(self, probes: list[Prompt]) -> dict[str, float]:
        """Spread and rank of the probe set's thoughts, so that collapse is seen while it happens."""
        self.method.eval()
        thoughts = self.method.think(probes)
        if not thoughts.vectors.shape[2] or not bool(thoughts.mask.all()):
            return {}  # ragged or no thoughts: the store's diagnostics handle those
        return probe(thoughts.vectors[:, 0].float().cpu().numpy())

    def save(self, done: int) -> None:
        """Everything needed to go on exactly here, as one file that is whole or absent."""
        if not self.accelerator.is_main_process:
            return
        weights = {name: p.detach() for name, p in self.method.named_parameters() if p.requires_grad}
        content = {
            "step": done,
            "setup": json.dumps(self.setup, sort_keys=True),
            "weights": weights,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "random": torch.get_rng_state(),
        }
        with whole(self.folder / "checkpoint.pt") as temporary:
            torch.save(content, temporary)


def _restore(folder: Path, method: LatentMethod, optimizers: Sequence[Any], setup: dict[str, Any]) -> int:
    """Load the checkpoint into the live objects; return the steps done."""
    path = folder / "checkpoint.pt"
    if not path.exists():
        raise ValueError(f"nothing to resume: no checkpoint at {path}; train without resume")
    saved = torch.load(path, map_location="cpu", weights_only=True)
    if saved["setup"] != json.dumps(setup, sort_keys=True):
        raise ValueError(
            f"{path} belongs to other settings ({saved['setup']}); resume with those, or give another folder"
        )
    own = dict(method.named_parameters())
    for name, value in saved["weights"].items():
        own[name].data.copy_(value)
    for optimizer, state in zip(optimizers, saved["optimizers"], strict=True):
        optimizer.load_state_dict(state)
    torch.set_rng_state(saved["random"])
    return saved["step"]


def _cut_metrics(folder: Path, done: int) -> None:
    """Drop rows written after the checkpoint: they will be made again."""
    path = folder / "metrics.jsonl"
    if path.exists():
        rows = [row for row in read_jsonl(path, ("step",)) if row["step"] <= done]
        write_text(path, "".join(json.dumps(row) + "\n" for row in rows))


def batches(prompts: Sequence[Prompt], config: TrainConfig, epoch: str) -> list[list[int]]:
    """The batches of an epoch, as indices: shuffled, then sorted by length within groups of eight batches (less padding)."""
    rng = random.Random(f"{config.seed} {epoch}")
    order = rng.sample(range(len(prompts)), len(prompts))
    cuts: list[list[int]] = []
    for start in range(0, len(order), 8 * config.batch_size):
        group = sorted(
            order[start : start + 8 * config.batch_size], key=lambda i: len(prompts[i].before) + len(prompts[i].target)
        )
        cuts += [group[k : k + config.batch_size] for k in range(0, len(group), config.batch_size)]
    return rng.sample(cuts, len(cuts))


def cut(batch: list[Prompt], world: int, micro: int | None) -> list[list[Prompt]]:
    """A batch in equal numbers of pieces per rank, sizes differing by at most one, none above `micro`."""
    rounds = 1 if micro is None else math.ceil(len(batch) / (world * micro))
    count = world * rounds
    if len(batch) < count:
        raise ValueError(f"a batch of {len(batch)} cannot feed {count} pieces on {world} processes; raise batch_size")
    return [batch[len(batch) * k // count : len(batch) * (k + 1) // count] for k in range(count)]


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate: a linear rise, then a linear fall to zero."""
    rise = max(1, round(warmup * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def make_optimizers(method: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on the weight matrices of layers and AdamW on the rest. Groups carry their peak lr."""
    tables = {id(p) for module in method.modules() if isinstance(module, nn.Embedding) for p in module.parameters()}
    named = [(name, p) for name, p in method.named_parameters() if p.requires_grad]
    matrices = [p for name, p in named if p.ndim == 2 and name.endswith("weight") and id(p) not in tables]
    if config.optimizer == "adamw" or not matrices:
        lr = config.lr if config.optimizer == "adamw" else config.adamw_lr
        group = {"params": [p for _, p in named], "peak": lr}
        return [torch.optim.AdamW([group], lr=lr, weight_decay=config.weight_decay)]
    chosen = {id(p) for p in matrices}
    rest = [p for _, p in named if id(p) not in chosen]
    muon = torch.optim.Muon(
        [{"params": matrices, "peak": config.lr}],
        lr=config.lr,
        weight_decay=config.weight_decay,
        adjust_lr_fn="original",
    )
    adamw = torch.optim.AdamW(
        [{"params": rest, "peak": config.adamw_lr}], lr=config.adamw_lr, weight_decay=config.weight_decay
    )
    return [muon, adamw] if rest else [muon]


@contextmanager
def _nothing() -> Iterator[None]:
    yield


@contextmanager
def _stop_softly() -> Iterator[Any]:
    """Turn the first Ctrl-C (or SIGTERM) into a request that `stop()` reports; a second one interrupts at once."""
    asked: list[int] = []

    def ask(number: int, _: Any) -> None:
        if asked:
            raise KeyboardInterrupt
        asked.append(number)

    kept = {}
    for number in (signal.SIGINT, signal.SIGTERM):
        try:
            kept[number] = signal.signal(number, ask)
        except ValueError:  # not the main thread: signals go elsewhere
            break
    try:
        yield lambda: bool(asked)
    finally:
        for number, handler in kept.items():
            signal.signal(number, handler)
