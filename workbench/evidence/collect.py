"""Run any method over examples: its thoughts, what it answers with them, and the vectors themselves, in one store."""

import json
import time
import warnings
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import torch
import xarray as xr

from .. import runs, store
from ..backbone import Backbone, Completion, Decoding
from ..backbone.thoughts import Mixture, joined
from ..methods import LatentMethod, Prompt, Thoughts
from ..methods.base import prepared
from ..methods.mixtures import mixed
from ..progress import progress
from ..tasks import Example, Task
from . import asking
from .changes import Change
from .dataset import Answered, dataset, stacked
from .journal import Journal


@torch.no_grad()
def collect(
    method: LatentMethod,
    task: Task,
    examples: Sequence[Example],
    *,
    split: str | None = None,
    decoding: Decoding | None = None,
    paths: int = 1,
    draws: int = 1,
    batch_size: int = 128,
    seed: int = 0,
    change: str | Change | None = None,
    readout: int = 0,
    out: str | Path | None = None,
) -> xr.Dataset:
    """The store of `method` on `examples`: `paths` thoughts per question, `draws` answers per thought.

    `split` is what the store says the examples are of: by default the one that the task gave them as, else "unknown".
    `change` turns the thoughts of all examples into others before they are answered with and stored: a name or a
    function of `changes`, e.g. "shuffled", "noised:0.5"; or "oracle", where a method makes thoughts from the worked
    steps (`LatentMethod.oracle`). `decoding` is greedy unless given; without its own length it
    takes the task's `answer_tokens`. `readout`: how many of the words that a thought is read as are kept, by logit lens
    and by nearest embedding (see `lens`). Nothing depends on `batch_size` beyond rounding.

    `out` is where the store is written, too. Every batch is kept beside it (`OUT.parts`) until it is: when the process
    was stopped, whichever way, the same call goes on from there and comes to the same store.

    Raises ValueError before anything is thought or answered for all that can be known by then, and warns
    (`asking.NothingDiffers`) before anything is answered several times that can only be the same.
    """
    path = None if out is None else store.writable(out)
    asked = asking.settings(method, task, decoding, paths, draws, batch_size, seed, readout)
    coords = asking.coordinates(examples)
    split = task.split_of(examples) if split is None else split
    oracle = change == "oracle"
    changed = None if oracle else asking.change_of(change, len(examples))
    method.eval()
    prompts = prepared(method, task, examples)
    if oracle:  # whether it has one is known at once
        method.oracle(prompts[:1])
    named = change if isinstance(change, str) else getattr(change, "__name__", repr(change) if change else "")
    settings = {**asdict(asked), "changed": named, "whole": changed is not None or asked.readout > 0}
    with Journal(path, {} if path is None else asking.about(method, task.name, prompts, settings)) as journal:
        work = _Work(method, task, prompts, asked, journal)
        try:
            thoughts, similar = work.think(whole=bool(settings["whole"]), oracle=oracle)
            thoughts = thoughts if changed is None else _changed(changed, thoughts, prompts)
            remark, copies = asking.repeated(thoughts, asked.decoding, asked.draws)
            if copies:
                warnings.warn(asking.NothingDiffers(f"{remark}: give a temperature above 0, or ask once"), stacklevel=3)
            answers = work.answer(thoughts)
            thoughts = [_with_answers(method, t, a.completions) for t, a in zip(thoughts, answers, strict=True)]
        except KeyboardInterrupt as error:
            raise KeyboardInterrupt(work.interrupted()) from error
        found = dataset(
            method, prompts, coords, thoughts, similar, answers, readout=asked.readout, batch_size=asked.batch_size
        )
        found.attrs |= {
            "task": task.name,
            "split": split,
            "seed": asked.seed,
            "decoding": json.dumps(asdict(asked.decoding)),
            "parsing": task.parsing,
            "prompts": task.prompts.name if task.prompts else task.wording,
            "shots": json.dumps([example.id for example in task.shots[:-1]]),
            "batch_size": asked.batch_size,
            "changed": named,
            "remark": "; ".join(filter(None, [method.remark(thoughts), remark])),
            "commit": " | ".join(dict.fromkeys([*work.commits, found.attrs["commit"]])),
            "seconds": work.seconds(),
        }
        store.check(found)
        if path is not None:
            store.save(found, path)
            journal.remove()
    return found


class _Work:
    """Batch after batch, each done once: what the journal has is taken from there."""

    def __init__(
        self, method: LatentMethod, task: Task, prompts: Sequence[Prompt], asked: asking.Asked, journal: Journal
    ):
        self.method, self.task, self.prompts, self.asked, self.journal = method, task, prompts, asked, journal
        order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].before))  # like lengths: less padding
        size = asked.batch_size
        self.batches = [order[start : start + size] for start in range(0, len(order), size)]
        self.commits = list(dict.fromkeys(done["commit"] for done in journal.found.values()))
        self.commit = "" if journal.path is None else runs.commit()
        self.before = sum(done["seconds"] for done in journal.found.values())
        self.started, self.answered = time.time(), 0

    def think(self, whole: bool, oracle: bool = False) -> tuple[list[Thoughts], list[dict[str, torch.Tensor]]]:
        """The thoughts of every question, and how its gold steps compare with them."""
        thoughts: list[Thoughts] = [_empty()] * len(self.prompts)
        similar: list[dict[str, torch.Tensor]] = [{}] * len(self.prompts)
        with progress(f"think {self.method.name} on {self.task.name}", len(self.prompts)) as bar:
            for number, places in enumerate(self.batches):
                batch = [self.prompts[i] for i in places]

                def thought(batch: list[Prompt] = batch) -> list[tuple[Thoughts, dict[str, torch.Tensor]]]:
                    paths, method = self.asked.paths, self.method
                    found = method.oracle(batch).over_paths(paths) if oracle else method.think(batch, paths=paths)
                    near = method.step_similarities(batch)
                    return [
                        (single(found, k, whole), {name: value[k].cpu().clone() for name, value in near.items()})
                        for k in range(len(batch))
                    ]

                for place, (one, near) in zip(places, self._once(("thoughts", number), "", thought), strict=True):
                    asking.thoughts_problem(one, self.prompts[place].example)
                    thoughts[place], similar[place] = one, near
                bar.update(len(places))
        return thoughts, similar

    def answer(self, thoughts: Sequence[Thoughts]) -> list[Answered]:
        """What is answered behind these thoughts, read and judged at once: a parser that fails does so early."""
        answers = [Answered([], [], [])] * len(self.prompts)
        asked, name = self.asked, f"answer {self.method.name} on {self.task.name}"
        with progress(name, len(self.prompts)) as bar:
            for number, places in enumerate(self.batches):
                batch, own = [self.prompts[i] for i in places], [thoughts[i] for i in places]

                def written(batch: list[Prompt] = batch, own: list[Thoughts] = own) -> list[list[list[Completion]]]:
                    given = together(own, self.method.backbone)
                    return self.method.answer(batch, given, asked.decoding, draws=asked.draws, seed=asked.seed)

                behind = "" if self.journal.path is None else _digest(own)
                for place, found in zip(places, self._once(("answers", number), behind, written), strict=True):
                    answers[place] = graded(self.task, self.prompts[place], found)
                self.answered += len(places)
                bar.update(len(places))
        return answers

    def _once(self, key: tuple[str, int], behind: str, make: Callable[[], Any]) -> Any:
        """What `make` gives, or what it gave before in the place of `key`, if the same was `behind` it."""
        known = self.journal.found.get(key)
        if known is not None and known["behind"] == behind:
            return known["value"]
        began = time.time()
        value = make()
        kept = {"value": value, "behind": behind, "seconds": time.time() - began, "commit": self.commit}
        self.journal.keep(key, kept)
        return value

    def seconds(self) -> float:
        """All that the collection took, what was done before it was stopped included."""
        return self.before + time.time() - self.started

    def interrupted(self) -> str:
        if self.journal.path is None:
            return f"interrupted; {self.answered} of {len(self.prompts)} questions were answered, and none are kept"
        return (
            f"interrupted; {self.answered} of {len(self.prompts)} questions are answered and kept in "
            f"{self.journal.path}: give the same command again to go on"
        )


def _changed(change: Change, thoughts: list[Thoughts], prompts: Sequence[Prompt]) -> list[Thoughts]:
    """Other thoughts for every question, or one sentence where a change gives none that can be answered with."""
    found = change(thoughts)
    if len(found) != len(thoughts):
        raise ValueError(f"a change of {len(thoughts)} questions' thoughts gave {len(found)}: give as many back")
    for one, prompt in zip(found, prompts, strict=True):
        asking.thoughts_problem(one, prompt.example)
    return found


def graded(task: Task, prompt: Prompt, completions: list[list[Completion]]) -> Answered:
    """What the task reads in the answers of one question, and whether it is right."""
    read = [[task.read(c.text, prompt.begun) for c in path] for path in completions]
    for value in (one for path in read for one in path):
        if value is not None and not isinstance(value, str):
            raise ValueError(f"task {task.name!r} reads {value!r} in an answer: its parse must give text or None")
    right = [[bool(one) and bool(task.same(one, prompt.example.answer)) for one in path] for path in read]
    return Answered(completions, [[one or "" for one in path] for path in read], right)


def _digest(thoughts: Sequence[Thoughts]) -> str:
    """What tells thoughts from others."""
    parts = [part for t in thoughts for part in (t.vectors, t.mask, t.tokens) if part is not None]
    parts += [part for t in thoughts if t.mixture for part in (t.mixture.tokens, t.mixture.weights)]
    return asking.digest(b"".join(f"{part.shape}".encode() + part.contiguous().numpy().tobytes() for part in parts))


def _empty() -> Thoughts:
    return Thoughts(torch.zeros(1, 1, 0, 1), torch.zeros(1, 1, 0, dtype=torch.bool))


def single(thoughts: Thoughts, k: int, whole: bool) -> Thoughts:
    """The thoughts of one example of a batch, on the CPU; mixtures stand for their vectors unless `whole`."""

    def own(value: torch.Tensor) -> torch.Tensor:
        return value[k : k + 1].cpu().clone()  # a view would keep the whole batch, all the vectors of mixtures too

    mixture = thoughts.mixture and Mixture(own(thoughts.mixture.tokens), own(thoughts.mixture.weights))
    vectors = thoughts.vectors if mixture is None or whole else thoughts.vectors[..., :0]
    tokens = None if thoughts.tokens is None else own(thoughts.tokens)
    signals = {name: own(value).float() for name, value in thoughts.signals.items()}
    return Thoughts(own(vectors).float(), own(thoughts.mask), tokens, signals, mixture)


def _with_answers(method: LatentMethod, before: Thoughts, answers: Sequence[Sequence[Completion]]) -> Thoughts:
    """An example's thoughts, and behind them those that its answers made on the way."""
    within = [[_float(c.thoughts) for c in path] for path in answers]
    if before.mixture is not None and any(t is not None and t.mixture is None for path in within for t in path):
        vectors = mixed(method.backbone, before.mixture.tokens, before.mixture.weights)
        before = replace(before, vectors=vectors.float().cpu())
    return joined(before, within)


def _float(thoughts: Thoughts | None) -> Thoughts | None:
    if thoughts is None:
        return None
    signals = {name: value.float() for name, value in thoughts.signals.items()}
    return replace(thoughts, vectors=thoughts.vectors.float(), signals=signals)


def together(thoughts: Sequence[Thoughts], backbone: Backbone) -> Thoughts:
    """Single-example thoughts as one batch; fewer steps are padded (mask false)."""

    def stack(parts: Sequence[torch.Tensor], fill: Any) -> torch.Tensor:
        return torch.from_numpy(stacked(parts, fill)).to(backbone.device)

    mixtures = [t.mixture for t in thoughts if t.mixture is not None]
    tokens = [t.tokens for t in thoughts if t.tokens is not None]
    if len(mixtures) == len(thoughts):
        vectors = mixed(backbone, stack([m.tokens for m in mixtures], -1), stack([m.weights for m in mixtures], 0.0))
    else:
        vectors = stack([t.vectors for t in thoughts], 0.0)
    mask = stack([t.mask for t in thoughts], False)
    return Thoughts(vectors, mask, stack(tokens, -1) if len(tokens) == len(thoughts) else None)
