"""The one training loop: any method, any task, one process or many, whole or sharded (accelerate).

Losses are means over what a method weighs (examples, unless it counts tokens), so a global batch cut into any
micro-batches on any number of ranks has one gradient: each piece counts by its weight.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import asdict
from pathlib import Path
from typing import Any, NoReturn

import torch
from accelerate.utils import DistributedType
from torch import Tensor
from torch.distributed.fsdp import FSDPModule

from .. import plugins, runs
from ..backbone import Backbone
from ..backbone.checkpointing import checkpointed
from ..backbone.packing import compiled
from ..backbone.prefixes import GIB, Prefixes
from ..files import logged_jsonl, sweep, write_json, written
from ..methods import LatentMethod, Prompt
from ..methods.base import prepared
from ..progress import progress
from ..runs import checkpoints
from ..runs.owners import Owner, owned, refuse
from ..tasks import Task
from . import stages
from .launch import alike, gathered, gathered_module, launched, take, told
from .look import look
from .optimizers import make_optimizers
from .plan import Step, TrainConfig, batches, cut, forgets, keeps, logs, make_plan, probes, saves, setup
from .stopping import softly


class TrainingFailed(RuntimeError):
    """Training cannot go on; the message says at which step and where the last good checkpoint is."""


def train(method: LatentMethod, task: Task, config: TrainConfig, folder: str | Path, *, resume: bool = False) -> Path:
    """Train `method` in place; return the run's folder with metrics, weights, checkpoint, snapshots and result.json.

    `resume=True` goes on from the folder's checkpoint and ends as if never stopped. Ctrl-C finishes the step, saves and
    says how to resume.
    """
    folder = Path(folder)
    if not resume:
        runs.refuse_run(folder)
    if os.environ.get("RANK", "0") == "0":  # the others may come when this one has claimed it for them all
        refuse(folder, but=os.getpid())
    prompts = prepared(method, task, task.examples("train", config.examples), learned=True)
    looked_at = prepared(method, task, task.examples("dev", config.probe_examples))
    plan = make_plan(method, config, len(prompts))
    run = _Run(method, task, config, folder, looked_at, len(plan), checkpoints.origin(method, prompts))
    if resume and not runs.begun(folder):
        raise ValueError(f"nothing to resume: no checkpoint at {folder / 'checkpoint.pt'}; train without resume")
    try:
        with owned(folder) if run.main else nullcontext() as owner:
            if owner is not None and not resume:
                runs.refuse_run(folder)  # one that began and ended since
            run.owner = owner
            return _go(run, plan, prompts, resume)
    except OSError as error:
        raise TrainingFailed(f"{error}; {run.kept()}") from error


def _go(run: "_Run", plan: list[Step], prompts: list[Prompt], resume: bool) -> Path:
    """All steps that are not done yet; the run's folder."""
    method, config, folder = run.method, run.config, run.folder
    done = run.restore() if resume else 0
    if done == 0 and config.begin is not None:
        take(config.begin, method, run.learned | method.saved())
    method.training_step, method.stage = done, plan[done - 1].stage if done else None
    run.begin(done)
    if keeps(done, len(plan), config):
        run.keep()
    legs, stage, epoch, cuts, rows = method.stages(), None, "", [], prompts
    shown = progress(f"train {method.name}", len(plan), initial=done, main=run.main)
    way = checkpointed if config.gradient_checkpointing else compiled if config.compile else nullcontext
    layers = way(method.backbone.model)
    sharded = run.accelerator.distributed_type == DistributedType.FSDP  # then all must read alike
    prefixes = Prefixes("off" if sharded else config.prefix_cache, config.prefix_cache_gib)
    shortcuts = _shortcuts(method.backbone, prefixes, config)
    with softly() as stop, shown as bar, layers, shortcuts, run.waking():
        for step in plan[done:]:
            if step.stage != stage:
                stage = method.stage = step.stage
                rows = run.enter(stage, prompts, within=step.epoch > 0 or step.place > 0)
            if epoch != f"{stage} {step.epoch}":
                epoch = f"{stage} {step.epoch}"
                cuts = batches(rows, config, epoch)
                method.begin_epoch(step.stage, step.epoch)
            if forgets(legs[step.stage], step):
                run.forget()
            batch = [rows[i] for i in cuts[step.place]]
            values = run.step(batch, step)
            method.training_step = step.number
            stopping = run.agree(stop())
            saving = saves(step.number, len(plan), config) or stopping
            if logs(step.number, len(plan), config) or stopping:
                run.log(values, step, bar)
            if keeps(step.number, len(plan), config):
                run.keep()  # before the checkpoint: what one is resumed from has its snapshots
            if saving:
                run.save(step.number)
            bar.update()
            if stopping and step.number < len(plan):
                command = runs.command("train", "--config", folder / "config.yaml", "--out", folder, "--resume", "true")
                again = f"go on with resume=True, or `{command}`{run.launcher}"
                raise KeyboardInterrupt(f"stopped after step {step.number} of {len(plan)}, saved in {folder}; {again}")
    run.finish()
    return folder


class _Run:
    """The live objects of one training and what is done with them at each step."""

    owner: Owner | None = None  # of the main process

    def __init__(
        self,
        method: LatentMethod,
        task: Task,
        config: TrainConfig,
        folder: Path,
        probes: list[Prompt],
        steps: int,
        origin: checkpoints.Origin,
    ):
        self.accelerator = launched(method, config)
        self.model, *self.optimizers = self.accelerator.prepare(method, *make_optimizers(method, config))
        self.method, self.config, self.folder, self.probes, self.steps = method, config, folder, probes, steps
        self.task, self.origin = task, origin
        self.setup = setup(method, task, config)
        self.learned = method.learned()  # after sharding, which makes others of them
        self.main, self.world = self.accelerator.is_main_process, self.accelerator.num_processes
        self.launcher = f", launched with {self.world} processes again" if self.world > 1 else ""
        self.warned: set[str] = set()
        self.resumed: checkpoints.Checkpoint | None = None
        self.started = time.time()

    def begin(self, done: int) -> None:
        """Say what is trained, write the config, drop rows and snapshots behind the checkpoint (made again)."""
        if self.owner is None:
            return
        self.owner.begun = True
        trainable, total = (sum(p.numel() for p in some) for some in (self.learned.values(), self.method.parameters()))
        where = f"{self.world} process{'es' * (self.world > 1)} ({self.accelerator.device.type})"
        print(
            f"training {self.method.name} on {self.method.backbone.name}: {trainable:,} trainable of {total:,} "
            f"parameters, {self.steps - done} steps, {where}",
            flush=True,
        )
        if notice := self.method.notice():
            print(notice, flush=True)
        runs.write_config(self.folder, self.setup)
        checkpoints.cut_log(self.folder, self.resumed)
        runs.drop_snapshots(self.folder, behind=done)
        sweep(self.folder)

    def enter(self, stage: int, prompts: list[Prompt], within: bool) -> Sequence[Prompt]:
        """Let learn what learns in a stage; the prompts it trains on, made now, or `within` it found again.

        All processes train on those of the main one.
        """
        self.rest(stages.at_rest(self.method, stage))
        kept = stages.read(self.folder, stage, prompts) if within and self.main else None
        kept = told(self.accelerator, kept)
        if kept is None:
            self.method.eval()
            torch.manual_seed(self.config.seed * 1_000_003 - 1 - stage)
            with torch.no_grad(), gathered_module(self.model):
                made = stages.checked(self.method.start(stage, prompts), prompts, self.method)
            if made is prompts:
                return prompts
            if within:
                raise ValueError(
                    f"{stages.path(self.folder, stage)} with the prompts that this stage was trained on is gone; put "
                    "it back, or train in another folder"
                )
            kept = told(self.accelerator, stages.packed(made) if self.main else None)
            if self.main:
                stages.write(self.folder, stage, kept)
        return stages.unpacked(kept, prompts)

    def rest(self, names: frozenset[str]) -> None:
        """Let these parameters rest, and all others that are trained learn."""
        backbone = self.method.backbone
        if names != self.method.resting:  # what was read with other weights is forgotten
            backbone.prefixes = Prefixes(backbone.prefixes.mode, backbone.prefixes.budget / GIB)
        self.method.resting = names
        if not isinstance(self.model, FSDPModule):  # sharded ones keep what they were wrapped as
            for name, parameter in self.learned.items():
                parameter.requires_grad_(name not in names)

    @contextmanager
    def waking(self) -> Iterator[None]:
        """However it ends, nothing rests behind it."""
        try:
            yield
        finally:
            self.rest(frozenset())

    def agree(self, flag: bool) -> bool:
        """Whether any process says so: a signal may reach them at different steps."""
        if self.world == 1:
            return flag
        told = torch.tensor([float(flag)], device=self.accelerator.device)
        return bool(self.accelerator.reduce(told, "sum")[0] > 0)

    def step(self, batch: list[Prompt], step: Step) -> dict[str, Any]:
        """One optimiser step; the returned tensors stay on the device and cover this process's share of the batch."""
        for optimizer in self.optimizers:
            for group in optimizer.param_groups:
                group["lr"] = group["peak"] * step.rate
        world, rank, device = self.world, self.accelerator.process_index, self.accelerator.device
        mine, whole_weight = cut(batch, rank, world, self.config.micro_batch), self.method.weigh(batch, step.stage)
        torch.manual_seed(self.config.seed * 1_000_003 + step.number * world + rank)  # so a resumed run draws the same
        precision = torch.autocast(device.type, torch.bfloat16, enabled=self.config.mixed_precision == "bf16")
        sums: dict[str, Tensor] = {}
        warnings: dict[str, Tensor] = {}
        self.method.train()
        for number, piece in enumerate(mine):
            # a process without a share of a small batch still has to meet the others: weight 0
            weight = self.method.weigh(piece, step.stage) / whole_weight if piece and whole_weight else 0.0
            last = number + 1 == len(mine)
            with nullcontext() if last else self.accelerator.no_sync(self.model):
                with precision:
                    losses = self.model(piece or batch[:1], step.stage)
                # data-parallel wrappers average gradients over ranks: `world` turns that into the sum of the shares
                self.accelerator.backward(losses.total * weight * world)
            for name, value in {"loss": losses.total, **{f"loss_{k}": v for k, v in losses.parts.items()}}.items():
                sums[name] = sums.get(name, 0) + value.detach() * weight
            for sentence, flag in losses.warnings.items():
                warnings[sentence] = warnings.get(sentence, flag) | flag
        for name in self.method.resting:  # sharded ones may have got a gradient all the same
            self.learned[name].grad = None
        learning = [p for name, p in self.learned.items() if name not in self.method.resting]
        norm = torch.as_tensor(self.accelerator.clip_grad_norm_(learning, self.config.clip))
        for optimizer in self.optimizers:
            optimizer.step()
            optimizer.zero_grad(set_to_none=True)
        return {"sums": sums, "gradient_norm": gathered(norm), "warnings": warnings}

    def forget(self) -> None:
        """Optimisers begin anew: moments and step counts are gone."""
        for optimizer in self.optimizers:
            optimizer.state.clear()

    def log(self, raw: dict[str, Any], step: Step, bar: Any) -> None:
        """Write a row of metrics.jsonl; stop on a loss that is no number, before a checkpoint could hold it."""
        names = list(raw["sums"])
        sums = torch.stack([raw["sums"][name].float() for name in names])
        if self.world > 1:
            sums = torch.as_tensor(self.accelerator.reduce(sums, "sum"))
        numbers = dict(zip(names, sums.tolist(), strict=True)) | {"gradient_norm": float(raw["gradient_norm"])}
        bad = next((name for name, value in numbers.items() if not math.isfinite(value)), None)
        if bad is not None:
            self.fail(f"{bad} is {numbers[bad]}", step.number)
        row: dict[str, Any] = {"step": step.number, "epoch": step.epoch, "stage": step.stage}
        row |= {"seconds": round(time.time() - self.started, 3), **numbers}
        row["lr"] = self.optimizers[0].param_groups[0]["lr"]
        said = [sentence for sentence, flag in raw["warnings"].items() if bool(flag)]
        if probes(step.number, self.steps, self.config):
            seen, more = self.look(step.number)
            row |= {f"probe_{name}": value for name, value in seen.items()}
            said += more
        said += [self.method.backbone.prefixes.said] if self.method.backbone.prefixes.said else []
        if said:
            row["warnings"] = said
        if self.main:
            self.check_owner()
            path = self.folder / "metrics.jsonl"
            with written(path), open(path, "a", encoding="utf-8") as file:
                file.write(json.dumps(row) + "\n")
            bar.set_postfix(loss=f"{row['loss']:.3f}")
            for sentence in set(said) - self.warned:
                bar.write(f"warning at step {step.number}: {sentence}")
            self.warned |= set(said)

    def fail(self, what: str, number: int) -> NoReturn:
        """End training with a sentence that says where it can be taken up again."""
        raise TrainingFailed(f"{what} at step {number}; {self.kept()}; lower the learning rate or look at the data")

    def kept(self) -> str:
        """What there is to go on from."""
        checkpoint = self.folder / "checkpoint.pt"
        return f"the last good checkpoint is {checkpoint}" if checkpoint.exists() else "there is no checkpoint yet"

    def check_owner(self) -> None:
        """End training, before anything is written, where the folder has been removed or is another's by now."""
        if self.owner is not None and self.owner.lost():
            raise TrainingFailed(f"{self.folder} was removed or made anew while this trained in it; the run ends here")

    def look(self, number: int) -> tuple[dict[str, float], tuple[str, ...]]:
        """What is seen in the probe set; training fails where its thoughts are no longer finite."""
        with gathered_module(self.model):
            found = look(self.method, self.task, self.probes, self.config.probe_answers, self.config.seed)
        if found is None:
            self.fail("thoughts of the probe set are no longer finite", number)
        return found

    def save(self, done: int) -> None:
        """Everything needed to go on exactly here, as one file that is whole or absent."""
        weights = self.sound_weights(done, all_learned=True)
        states = [optimizer.state_dict() for optimizer in self.optimizers]
        for state in states:
            state["state"] = {i: {k: gathered(v) for k, v in kept.items()} for i, kept in state["state"].items()}
        if self.main:
            self.check_owner()
            seconds = time.time() - self.started
            log = checkpoints.log_state(self.folder)
            state = checkpoints.Checkpoint(done, self.setup, weights, states, seconds, self.origin, log)
            checkpoints.write(self.folder, state)
        self.accelerator.wait_for_everyone()  # else a process that ends now would have its launcher end the writing one

    def keep(self) -> None:
        """A snapshot of the weights as they are."""
        weights = self.sound_weights(self.method.training_step or 0)
        if self.main:
            self.check_owner()
            runs.save_weights(self.method, self.folder, weights, snapshot=True)

    def weights(self, all_learned: bool = False) -> dict[str, Tensor]:
        """What a weights file holds, or with `all_learned` all that training goes on from; every process must ask.

        Sharded ones are gathered from all, and whole.
        """
        named = self.learned | self.method.saved() if all_learned else self.method.saved()
        return {name: gathered(value.detach()) for name, value in named.items()}

    def sound_weights(self, number: int, all_learned: bool = False) -> dict[str, Tensor]:
        """The weights now; training fails where one is not finite, which the loss of those before did not show yet."""
        weights = self.weights(all_learned)
        bad = next((name for name, value in weights.items() if not bool(value.isfinite().all())), None)
        if bad is not None:
            self.fail(f"weight {bad} is no longer finite", number)
        return weights

    def restore(self) -> int:
        """Load the checkpoint into the live objects; return the steps done."""
        if not (self.folder / "checkpoint.pt").exists():
            return 0  # killed before the first checkpoint
        saved = self.resumed = checkpoints.read(self.folder)
        defaults = {"training": asdict(TrainConfig())}
        if saved.setup["method"] == self.method.name:
            defaults["options"] = asdict(self.method.Config())
        checkpoints.check(self.folder, saved, self.setup, defaults, self.origin, log=self.main)
        plugins.compare(*(plugins.named(setup.get("plugins")) for setup in (saved.setup, self.setup)))
        own = self.learned | self.method.saved()
        for name, value in saved.weights.items():
            own[name].data.copy_(alike(value, own[name]))
        for optimizer, state in zip(self.optimizers, saved.optimizers, strict=True):
            parameters = [p for group in optimizer.param_groups for p in group["params"]]  # numbered in this order
            kept = state["state"].items()
            state["state"] = {i: {k: alike(v, parameters[i]) for k, v in values.items()} for i, values in kept}
            optimizer.load_state_dict(state)
        self.started -= saved.seconds
        return saved.step

    def finish(self) -> None:
        """Write the weights and result.json."""
        weights = self.weights()
        if self.main:
            self.check_owner()
            runs.save_weights(self.method, self.folder, weights)
            seconds = time.time() - self.started
            result = {
                "steps": self.steps,
                "trainable_parameters": sum(p.numel() for p in self.learned.values()),
                "seconds": round(seconds, 2),
                "seconds_per_step": seconds / self.steps,
                "world_size": self.world,
                "device": str(self.accelerator.device),
                "final": list(logged_jsonl(self.folder / "metrics.jsonl"))[-1][1],
            }
            write_json(self.folder / "result.json", self.setup | result | runs.provenance())
        self.accelerator.wait_for_everyone()


@contextmanager
def _shortcuts(backbone: Backbone, prefixes: Prefixes, config: TrainConfig) -> Iterator[None]:
    """Within, losses are computed as the settings say; the backbone, which others may use, is left as it was."""
    before = backbone.prefixes, backbone.padded, backbone.full_logits
    backbone.prefixes, backbone.padded, backbone.full_logits = prefixes, config.padded, config.full_logits
    try:
        yield
    finally:
        backbone.prefixes, backbone.padded, backbone.full_logits = before
