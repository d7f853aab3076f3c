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
from typing import Any, Literal, NoReturn

import torch
from accelerate import Accelerator
from accelerate.state import AcceleratorState
from torch import Tensor, nn
from tqdm import tqdm

from . import runs
from .config import bounded, differences
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
    """Examples per forward pass and process; smaller ones save memory. Losses that are means over examples, the default
    of every method, do not change. None: no cutting."""
    optimizer: Literal["muon", "adamw"] = "muon"
    """Muon for the weight matrices (it orthogonalises their updates) and AdamW for the rest, or AdamW for all."""
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
    mixed_precision: Literal["no", "bf16"] = "no"
    """Autocast of the forward pass; trainable weights stay as they are."""
    log_every: int = 1
    """Steps between rows of metrics.jsonl."""
    probe_every: int = 20
    """Steps between looks at the thoughts of the probe set (spread, effective rank, ...)."""
    probe_examples: int = 64
    """Size of the probe set, from the dev split."""
    save_every: int = 200
    """Steps between checkpoints."""

    def __post_init__(self) -> None:
        rates = dict.fromkeys(("lr", "adamw_lr"), (0.0, math.inf))
        bounded(self, warmup=(0, 1), weight_decay=(0, 1e6), clip=(1e-9, math.inf), **rates)
        for name in ("examples", "epochs", "batch_size", "micro_batch", "log_every", "probe_every", "save_every"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"{name}={value} in the training settings: it must be at least 1")


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says at which step and where the last good checkpoint is."""


@dataclass(frozen=True)
class Step:
    """One step of the plan: which batch of which epoch of which stage, and the share of the peak learning rate."""

    number: int
    stage: int
    epoch: int
    place: int
    rate: float


def train(method: LatentMethod, task: Task, config: TrainConfig, folder: str | Path, *, resume: bool = False) -> Path:
    """Train `method` in place; return the run's folder with metrics, weights, checkpoint and result.json.

    `resume=True` goes on from the folder's checkpoint and ends as if never stopped. Ctrl-C finishes the step, saves and
    says how to resume.
    """
    folder = Path(folder)
    if not method.stages():
        raise ValueError(f"method {method.name!r} has nothing to train; collect its answers right away")
    if not resume and (folder / "metrics.jsonl").exists():
        raise ValueError(f"{folder} holds a run already; resume it, or give another folder")
    prompts = [method.render(example, task) for example in task.examples("train", config.examples)]
    probes = [method.render(example, task) for example in task.examples("dev", config.probe_examples)]
    plan = make_plan(method, config, len(prompts))
    run = _Run(method, task, config, folder, probes)
    done = run.restore() if resume else 0
    run.begin(done)
    stage, epoch, cuts = None, "", []
    shown: dict[str, Any] = {} if run.main else {"disable": True}  # disable=False would overrule TQDM_DISABLE
    progress = tqdm(plan, desc=f"train {method.name}", initial=done, total=len(plan), **shown)
    with _stop_softly() as stop, progress as bar, run:
        for step in plan[done:]:
            if step.stage != stage:
                stage = step.stage
                method.start(stage, prompts)
            if epoch != f"{stage} {step.epoch}":
                epoch = f"{stage} {step.epoch}"
                cuts = batches(prompts, config, epoch)
            batch = [prompts[i] for i in cuts[step.place]]
            values = run.step(batch, step)
            stopping = run.agree(stop())
            saving = step.number % config.save_every == 0 or step.number == len(plan) or stopping
            if step.number % config.log_every == 0 or saving:  # before a checkpoint always: it finds a bad loss first
                run.log(values, step, bar)
            if saving:
                run.save(step.number)
            bar.update()
            if stopping and step.number < len(plan):
                command = f"workbench train --config {folder / 'config.yaml'} --out {folder} --resume true"
                again = f"go on with resume=True, or `{command}`"
                raise KeyboardInterrupt(f"stopped after step {step.number} of {len(plan)}, saved in {folder}; {again}")
    run.finish(len(plan))
    return folder


def make_plan(method: LatentMethod, config: TrainConfig, count: int) -> list[Step]:
    """Every step of training on `count` examples, in order; each stage has its own learning-rate schedule."""
    per_epoch = math.ceil(count / config.batch_size)
    plan: list[Step] = []
    for index, stage in enumerate(method.stages()):
        steps = max(1, round(stage.share * config.epochs * per_epoch))
        rates = [schedule(step, steps, config.warmup) for step in range(steps)]
        for step, rate in enumerate(rates):
            plan.append(Step(len(plan) + 1, index, step // per_epoch, step % per_epoch, rate))
    return plan


class _Run:
    """The live objects of one training and what is done with them at each step."""

    def __init__(self, method: LatentMethod, task: Task, config: TrainConfig, folder: Path, probes: list[Prompt]):
        AcceleratorState._reset_state()  # else a notebook's second training must have the precision of its first
        self.accelerator = Accelerator(mixed_precision=config.mixed_precision)
        self.model, *self.optimizers = self.accelerator.prepare(method, *make_optimizers(method, config))
        self.method, self.config, self.folder, self.probes = method, config, folder, probes
        self.setup = runs.describe_method(method) | {"task": task.name, "data": task.source}
        self.setup["training"] = differences(config)
        self.trained = [p for p in method.parameters() if p.requires_grad]
        self.main = self.accelerator.is_main_process
        self.warned: set[str] = set()
        self.started = time.time()

    def __enter__(self) -> None:
        """Nothing to do: the run is live since it was made."""

    def __exit__(self, *_: object) -> None:
        """Take accelerate's autocast off the method: the caller's object must not keep this run's precision."""
        self.accelerator.unwrap_model(self.model, keep_fp32_wrapper=False)

    def begin(self, done: int) -> None:
        """Write the config and drop rows written after the checkpoint (they will be made again)."""
        if not self.main:
            return
        runs.write_config(self.folder, self.setup)
        path = self.folder / "metrics.jsonl"
        if path.exists():
            rows = [row for row in read_jsonl(path, ("step",)) if row["step"] <= done]
            write_text(path, "".join(json.dumps(row) + "\n" for row in rows))

    def agree(self, flag: bool) -> bool:
        """Whether any process says so: a signal may reach them at different steps."""
        if self.accelerator.num_processes == 1:
            return flag
        told = torch.tensor([float(flag)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, "sum")[0] > 0)

    def step(self, batch: list[Prompt], step: Step) -> dict[str, Any]:
        """One optimiser step; the returned tensors stay on the device and cover this process's share of the batch."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * step.rate
        world, rank = self.accelerator.num_processes, self.accelerator.process_index
        mine = cut(batch, rank, world, self.config.micro_batch)
        torch.manual_seed(self.config.seed * 1_000_003 + step.number * world + rank)  # so a resumed run draws the same
        sums: dict[str, Tensor] = {}
        warnings: dict[str, Tensor] = {}
        self.method.train()
        for number, piece in enumerate(mine):
            weight = len(piece) / len(batch)
            last = number + 1 == len(mine)
            with _nothing() if last else self.accelerator.no_sync(self.model):
                # a process without a share of a small last batch still has to meet the others: weight 0
                losses = self.model(piece or batch[:1], step.stage)
                # data-parallel wrappers average gradients over ranks: `world` turns that into the sum of the shares
                self.accelerator.backward(losses.total * weight * world)
            for name, value in {"loss": losses.total, **{f"loss_{k}": v for k, v in losses.parts.items()}}.items():
                sums[name] = sums.get(name, 0) + value.detach() * weight
            for sentence, flag in losses.warnings.items():
                warnings[sentence] = warnings.get(sentence, flag) | flag
        norm = self.accelerator.clip_grad_norm_(self.trained, self.config.clip)
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {"sums": sums, "gradient_norm": norm, "warnings": warnings}

    def log(self, raw: dict[str, Any], step: Step, bar: tqdm) -> None:
        """Write a row of metrics.jsonl; stop on a loss that is no number, before a checkpoint could hold it."""
        names = list(raw["sums"])
        sums = torch.stack([raw["sums"][name].float() for name in names])
        if self.accelerator.num_processes > 1:
            sums = torch.as_tensor(self.accelerator.reduce(sums, "sum"))
        numbers = dict(zip(names, sums.tolist(), strict=True)) | {"gradient_norm": float(raw["gradient_norm"])}
        bad = next((name for name, value in numbers.items() if not math.isfinite(value)), None)
        if bad is not None:
            self.fail(f"{bad} is {numbers[bad]}", step.number)
        row: dict[str, Any] = {"step": step.number, "epoch": step.epoch, "stage": step.stage}
        row |= {"seconds": round(time.time() - self.started, 3), **numbers}
        row["lr"] = self.optimizers[0].param_groups[0]["lr"]
        if step.number % self.config.probe_every == 0 or step.number == 1:
            row |= {f"probe_{name}": value for name, value in self.look(step.number).items()}
        said = [sentence for sentence, flag in raw["warnings"].items() if bool(flag)]
        if said:
            row["warnings"] = said
        if self.main:
            with open(self.folder / "metrics.jsonl", "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            bar.set_postfix(loss=f"{row['loss']:.3f}")
            for sentence in set(said) - self.warned:
                bar.write(f"warning at step {step.number}: {sentence}")
            self.warned |= set(said)

    def fail(self, what: str, number: int) -> NoReturn:
        """End training with a sentence that says where it can be taken up again."""
        checkpoint = self.folder / "checkpoint.pt"
        kept = f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"
        raise TrainingFailed(f"{what} at step {number}; {kept}; lower the learning rate or look at the data")

    @torch.no_grad()
    def look(self, number: int) -> dict[str, float]:
        """Spread and rank of the probe set's thoughts, so that collapse is seen while it happens."""
        self.method.eval()
        thoughts = self.method.think(self.probes)
        if not thoughts.vectors.shape[2] or not bool(thoughts.mask.all()):
            return {}  # ragged or no thoughts: the store's diagnostics handle those
        if not bool(thoughts.vectors.isfinite().all()):
            self.fail("thoughts of the probe set are no longer finite", number)
        return probe(thoughts.vectors[:, 0].float().cpu().numpy())

    def save(self, done: int) -> None:
        """Everything needed to go on exactly here, as one file that is whole or absent."""
        weights = {name: p.detach() for name, p in self.method.named_parameters() if p.requires_grad}
        bad = next((name for name, value in weights.items() if not bool(value.isfinite().all())), None)
        if bad is not None:  # the loss was finite before this update
            self.fail(f"weight {bad} is no longer finite", done)
        if not self.main:
            return
        content = {
            "step": done,
            "setup": json.dumps(self.setup, sort_keys=True),
            "weights": weights,
            "optimizers": [optimizer.state_dict() for optimizer in self.optimizers],
            "seconds": time.time() - self.started,
        }
        with whole(self.folder / "checkpoint.pt") as temporary:
            torch.save(content, temporary)

    def restore(self) -> int:
        """Load the checkpoint into the live objects; return the steps done."""
        path = self.folder / "checkpoint.pt"
        if not path.exists() and (self.folder / "metrics.jsonl").exists():
            return 0  # killed before the first checkpoint
        if not path.exists():
            raise ValueError(f"nothing to resume: no checkpoint at {path}; train without resume")
        saved = torch.load(path, map_location="cpu", weights_only=True)
        if saved["setup"] != json.dumps(self.setup, sort_keys=True):
            raise ValueError(f"{path} belongs to other settings ({saved['setup']}); resume with those")
        own = dict(self.method.named_parameters())
        for name, value in saved["weights"].items():
            own[name].data.copy_(value)
        for optimizer, state in zip(self.optimizers, saved["optimizers"], strict=True):
            optimizer.load_state_dict(state)
        self.started -= saved["seconds"]
        return saved["step"]

    def finish(self, steps: int) -> None:
        """Write the weights and result.json."""
        if self.main:
            runs.save_weights(self.method, self.folder)
            seconds = time.time() - self.started
            result = {
                "steps": steps,
                "trainable_parameters": sum(p.numel() for p in self.trained),
                "seconds": round(seconds, 2),
                "seconds_per_step": seconds / steps,
                "world_size": self.accelerator.num_processes,
                "device": str(self.accelerator.device),
                "final": read_jsonl(self.folder / "metrics.jsonl")[-1],
            }
            write_json(self.folder / "result.json", self.setup | result | runs.provenance())
        self.accelerator.wait_for_everyone()


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

    There is at least one piece; it is empty where there are fewer examples than processes.
    """
    share = batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]
    count = 1 if micro is None else max(1, math.ceil(len(share) / micro))
    return [share[len(share) * k // count : len(share) * (k + 1) // count] for k in range(count)]


def schedule(step: int, steps: int, warmup: float) -> float:
    """The share of the peak learning rate: a linear rise, then a linear fall to zero."""
    rise = max(1, round(warmup * steps))
    return min((step + 1) / rise, (steps - step) / max(1, steps - rise))


def make_optimizers(method: nn.Module, config: TrainConfig) -> list[torch.optim.Optimizer]:
    """AdamW on everything, or Muon on the matrices of layers and AdamW on the rest; groups carry their peak rate."""
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
