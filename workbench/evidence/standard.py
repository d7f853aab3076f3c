"""The standard of evidence: what of a method's thoughts answers hang on, measured in the same way for every method.

    found = assess(method, task, task.examples("test", 500))
    found.sentence                     "The thoughts carry meaning (...) about their question: ..."

Answers free, forced right behind the thoughts and forced without any; cross-entropy of gold chain and gold answer
behind thoughts from eight sources (`analysis.evidence.SOURCES`); thoughts swapped between questions, all and slot by
slot; each slot taken away; readers with floors; attention on thoughts over their share. The rule of the sentence is in
`workbench/analysis/evidence.py`.

Of N questions and S slots: every question is thought about twice (by the method as it was before training, too); five
free answers; 8 + 2 S short forced answers; 24 + 4 S likelihoods of a target; 32 answers read again with attention.
`planned` says it for a run.
"""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import torch
from jaxtyping import Int
from torch import Tensor

from .. import runs
from ..analysis.diagnostics import nearest_tokens, principal_components, reading
from ..analysis.evidence import LEVEL, SHARES, Evidence, table
from ..analysis.scores import mean_interval, paired_difference
from ..backbone import Backbone, Decoding
from ..methods import LatentMethod, Prompt, Thoughts, build
from ..methods.base import prepared
from ..methods.baselines import ANSWER_TOKENS
from ..progress import progress
from ..tasks import Example, Task
from .along import along_answers
from .asking import settings, thoughts_problem
from .changes import change_named, donors
from .collect import graded, single, together

SLOTS = 8  # that are swapped and taken away one by one, evenly spread over those there are
LOOKED = 32  # questions whose answers are read with attention that can be looked at
WIDEST = 1024  # features a reader gets; of more it gets principal components
COMPONENTS = 256
FREE = ("own", "other", "mean", "nearest", "none")  # sources that are answered behind freely, which takes longest
CHANGES = {"other": "shuffled", "mean": "averaged", "random": "random", "none": "dropped"}
Rows = dict[str, np.ndarray]  # measure -> a value per question


@torch.no_grad()
def assess(
    method: LatentMethod,
    task: Task,
    examples: Sequence[Example],
    *,
    split: str | None = None,
    decoding: Decoding | None = None,
    batch_size: int = 128,
    seed: int = 0,
    slots: int = SLOTS,
    looked: int = LOOKED,
    snapshots: Mapping[int, Callable[[], LatentMethod]] | None = None,
) -> Evidence:
    """All that the standard asks of `method` on `examples`, at least three.

    slots: how many at most are swapped and taken away one by one. looked: questions whose answers are read again for
    their attention. snapshots: the method at earlier training steps, made when they are needed; thoughts are swapped
    with each. What does not apply to a method is said in a note. Draws nothing anew: the same call finds the same.
    """
    if len(examples) < 3:
        raise ValueError(f"{len(examples)} questions: swapping thoughts needs at least three, give more examples")
    asked = settings(method, task, decoding, 1, 1, batch_size, seed, 0)
    began, subject = time.time(), _Subject(method.eval(), task, examples, asked.decoding, asked.batch_size, seed)
    own, notes = subject.think(), []
    thinks = any(bool(t.mask.any()) for t in own)
    sources = _sources(subject, own, slots, notes) if thinks else {"own": own}
    found: dict[str, Rows] = {}
    replies: dict[tuple[str, str], list[str]] = {}
    with progress(f"evidence of {method.name} on {task.name}", len(sources)) as bar:
        for name, thoughts in sources.items():
            found[name] = _measured(subject, name, thoughts, replies, thinks)
            bar.update()
    swaps = [*_swaps(subject, replies, ""), *_along(subject, snapshots or {})] if thinks else []
    readers = _readers(subject, own, notes) if thinks else []
    if not thinks:
        notes.append("no thoughts stand before the answers: nothing is swapped, taken away or read")
    elif not subject.chained:
        notes.append("the gold chain has no cost: the replies that the method learns hold no worked steps")
    about = runs.describe_method(method) | {
        "task": task.name, "split": split or task.split_of(examples), "questions": len(examples), "seed": seed,
        "training_step": method.training_step, "level": LEVEL, **runs.provenance(),
    }  # fmt: skip
    attention, within = _attention(subject, examples[:looked], notes)
    return Evidence(
        table("values", [(name, *row) for name, rows in found.items() for row in _values(rows)]),
        table("effects", [(name, *row) for name in found if name != "own" for row in _effects(found, name)]),
        table("swaps", swaps),
        table("readers", readers),
        table("attention", attention),
        tuple(notes),
        about | {"within": within, "seconds": round(time.time() - began, 1)},
    )


def planned(
    method: LatentMethod, task: Task, examples: Sequence[Example], slots: int = SLOTS, snapshots: int = 0
) -> str:
    """What `assess` will do, in one sentence: it thinks about three questions to know how many slots there are."""
    prompts = [method.render(example, task) for example in examples[:3]]
    with torch.no_grad():
        count = method.eval().think(prompts).mask.shape[2]
    if not count:
        return f"{len(examples)} questions, no thoughts before the answers: answers free and forced"
    single = min(count, slots) if count > 1 else 0
    sources = 5 + bool(method.trained) + 2 * (method.needs == "model")
    free = len(FREE) - (method.needs != "model")
    return (
        f"{len(examples)} questions, thoughts in up to {count} slots: {free} free and "
        f"{sources + 2 * single + 2 * snapshots} forced answers to each, and {3 * sources + 4 * single} likelihoods"
    )


class _Subject:
    """A method with its questions: thinks, answers and costs texts behind any thoughts, batch after batch."""

    def __init__(
        self, method: LatentMethod, task: Task, examples: Sequence[Example], decoding: Decoding, size: int, seed: int
    ):
        self.method, self.task, self.decoding, self.seed = method, task, decoding, seed
        self.prompts = prepared(method, task, examples, learned=True)
        self.chained = all(_chain_first(p) for p in self.prompts)
        mark = method.backbone.plain_ids(task.mark)
        self.parts = [_parts(p, task, mark) for p in self.prompts]
        order = sorted(range(len(examples)), key=lambda i: len(self.prompts[i].before))  # like lengths: less padding
        self.batches = [order[start : start + size] for start in range(0, len(order), size)]

    @property
    def gold(self) -> list[str]:
        return [p.example.answer for p in self.prompts]

    def think(self, method: LatentMethod | None = None) -> list[Thoughts]:
        """The thoughts of each question, by this method or by another one that reads the same questions."""
        method = method or self.method
        prompts = self.prompts if method is self.method else [method.render(p.example, self.task) for p in self.prompts]
        found: dict[int, Thoughts] = {}
        for places in self.batches:
            batch = method.think([prompts[i] for i in places])
            for k, i in enumerate(places):
                found[i] = single(batch, k, whole=True)
                thoughts_problem(found[i], prompts[i].example)
        return [Thoughts(found[i].vectors, found[i].mask, found[i].tokens) for i in range(len(prompts))]

    def answers(self, thoughts: Sequence[Thoughts], forced: bool) -> tuple[np.ndarray, list[str]]:
        """Of each question whether it is answered rightly behind these thoughts, and what was read in the answer.

        forced: the answer's mark stands right behind the thoughts, and the reply is a line.
        """
        right, read = np.zeros(len(self.prompts)), [""] * len(self.prompts)
        decoding = replace(self.decoding, max_new_tokens=ANSWER_TOKENS) if forced else self.decoding
        for places in self.batches:
            prompts = [self.parts[i]["at once"] if forced else self.prompts[i] for i in places]
            batch = together([thoughts[i] for i in places], self.method.backbone)
            for i, prompt, written in zip(
                places, prompts, self.method.answer(prompts, batch, decoding, seed=self.seed), strict=True
            ):
                if forced:  # the tokens alone: what a method puts before its text is in the prompt already
                    text = self.method.backbone.tokenizer.decode(written[0][0].tokens, skip_special_tokens=True)
                    read[i] = self.task.read(text or written[0][0].text, self.task.mark) or ""
                    right[i] = bool(read[i]) and self.task.same(read[i], prompt.example.answer)
                else:
                    judged = graded(self.task, prompt, written)
                    read[i], right[i] = judged.predictions[0][0], judged.right[0][0]
        return right, read

    def nats(self, thoughts: Sequence[Thoughts], measure: str) -> np.ndarray:
        """Nats per token of a text behind these thoughts, for each question."""
        found = np.zeros(len(self.prompts))
        for places in self.batches:
            own = [thoughts[i] for i in places]
            prompts = [_led(self.parts[i][measure], t) for i, t in zip(places, own, strict=True)]
            costs = self.method.likelihood(prompts, together(own, self.method.backbone))
            found[places] = costs.float().cpu().numpy()
        return found


def _chain_first(prompt: Prompt) -> bool:
    """Whether the reply that the method is to write begins with the worked steps."""
    chain = torch.cat([*prompt.steps, prompt.target[:0]])
    return bool(len(chain)) and torch.equal(prompt.target[: len(chain)], chain)


def _parts(prompt: Prompt, task: Task, mark: Int[Tensor, "_"]) -> dict[str, Prompt]:
    """The prompt with the target of each measure of cross-entropy, and all before it given."""
    chain = torch.cat([*prompt.steps, prompt.target[:0]])
    rest = prompt.target[len(chain) :] if _chain_first(prompt) else prompt.target
    if prompt.begun.rstrip().endswith(task.mark):
        mark = mark[:0]
    elif torch.equal(rest[: len(mark)], mark):
        rest = rest[len(mark) :]
    else:  # a tokenizer that writes mark and answer as one
        rest = torch.cat([prompt.answer, prompt.target[-1:]])
    return {
        "at once": replace(
            prompt, after=torch.cat([prompt.after, mark]), target=rest, begun=task.mark, ends=""
        ),
        "chain": replace(prompt, target=chain),
        "answer": replace(prompt, after=torch.cat([prompt.after, chain, mark]), target=rest),
    }  # fmt: skip


def _led(prompt: Prompt, thoughts: Thoughts) -> Prompt:
    """The same row where nothing stands between the prompt and its target: something must tell the first token."""
    if len(prompt.after) or bool(thoughts.mask.any()):
        return prompt
    return replace(prompt, before=prompt.before[:-1], after=prompt.before[-1:])


# ---------------------------------------------------------------------------------------------------------- the sources


def _sources(subject: _Subject, own: list[Thoughts], slots: int, notes: list[str]) -> dict[str, list[Thoughts]]:
    """Thoughts by where they come from; what a method cannot have is left out, with a note."""
    found = {"own": own} | {name: change_named(change)(own) for name, change in CHANGES.items()}
    method = subject.method
    if method.trained:
        found["untrained"] = subject.think(_untrained(method, subject.seed))
    else:
        notes.append("nothing is trained, so that there are no thoughts of the untrained method")
    if method.needs == "model":
        found["filler"] = _fillers(method.backbone, own)
        found["nearest"] = _nearest(method.backbone, own)
    else:
        notes.append("the method reads vectors of its own beside its words: no tokens can stand in their place")
    count = max(t.mask.shape[2] for t in own)
    chosen = sorted(set(np.linspace(0, count - 1, min(count, slots)).round().astype(int).tolist()))
    if len(chosen) < count:
        notes.append(f"of {count} slots {len(chosen)} are swapped and taken away one by one: {chosen}")
    for k in chosen if count > 1 else []:
        found |= {f"{change} {k}": change_named(f"{change}:{k}")(own) for change in ("swapped", "without")}
    return found


def _untrained(method: LatentMethod, seed: int) -> LatentMethod:
    """The method as it was built, on the same frozen language model, or where it trains its own on a fresh one."""
    given = method.backbone
    if method.needs != "model" or given.trains:
        given = Backbone.load(given.name, revision=given.revision, weights=method.needs == "model")
    fresh = build(method.name, given, method.config, seed=seed).eval()
    fresh.stage = method.stage
    return fresh


def _fillers(backbone: Backbone, own: Sequence[Thoughts]) -> list[Thoughts]:
    """As many full stops as there are thoughts (Pfau et al. 2024)."""
    vector = backbone.embed(backbone.plain_ids(".")[-1:])[0].float().cpu()
    return [Thoughts(vector.expand(t.vectors.shape).clone(), t.mask) for t in own]


def _nearest(backbone: Backbone, own: Sequence[Thoughts]) -> list[Thoughts]:
    """Each thought as the embedding of the token that it points to most."""
    rows = backbone.inputs().float().cpu()
    vectors = torch.cat([t.vectors[t.mask] for t in own])
    ids = torch.from_numpy(nearest_tokens(vectors.numpy(), rows.numpy(), 1)[0][:, 0])
    found, start = [], 0
    for t in own:
        count, changed = int(t.mask.sum()), t.vectors.clone()
        changed[t.mask] = rows[ids[start : start + count]]
        found.append(Thoughts(changed, t.mask))
        start += count
    return found


# ------------------------------------------------------------------------------------------------------------- measures


def _measured(
    subject: _Subject, name: str, thoughts: Sequence[Thoughts], replies: dict[tuple[str, str], list[str]], thinks: bool
) -> Rows:
    """Every measure that is taken behind these thoughts; what was answered goes to `replies`."""
    found: Rows = {}
    if name in FREE:
        found["free"], replies[name, "free"] = subject.answers(thoughts, forced=False)
    found["forced"], replies[name, "forced"] = subject.answers(thoughts, forced=True)
    if not thinks:
        return found
    found["at once"] = subject.nats(thoughts, "at once")
    if subject.chained:
        found["chain"] = subject.nats(thoughts, "chain")
        if " " not in name:
            found["answer"] = subject.nats(thoughts, "answer")
    return found


def _values(rows: Rows) -> list[tuple[Any, ...]]:
    found = []
    for measure, values in rows.items():
        shares = measure in SHARES
        one = mean_interval(values, level=LEVEL) if shares else paired_difference(values, 0 * values, LEVEL)
        found.append((measure, one.mean, one.low, one.high, one.n))
    return found


def _effects(found: Mapping[str, Rows], name: str) -> list[tuple[Any, ...]]:
    """What own thoughts are better by than those of a source."""
    rows = []
    for measure, values in found[name].items():
        own = found["own"][measure]
        better = (own, values) if measure in SHARES else (values, own)
        one = paired_difference(*better, LEVEL)
        rows.append((measure, one.mean, one.low, one.high, one.n))
    return rows


def _swaps(subject: _Subject, replies: Mapping[tuple[str, str], list[str]], step: str) -> list[tuple[Any, ...]]:
    """How often the answer is that of the question whose thoughts were given, beside that of a third one."""
    rows, same, gold = [], subject.task.same, subject.gold
    giver, third = donors(len(gold)), donors(len(gold), 2)
    apart = [i for i in range(len(gold)) if not same(gold[giver[i]], gold[i])]
    for (name, how), read in replies.items():
        if (name != "other" and not name.startswith("swapped")) or len(apart) < 2:
            continue
        follows, chance = (
            np.array([bool(read[i]) and same(read[i], gold[of[i]]) for i in apart], float) for of in (giver, third)
        )
        changed = float(np.mean([read[i] != replies["own", how][i] for i in apart]))
        one = paired_difference(follows, chance, LEVEL)
        slot = "all" if name == "other" else name.split()[1]
        means = float(follows.mean()), float(chance.mean())
        rows.append((slot, how, step, *means, one.mean, one.low, one.high, changed, one.n))
    return rows


def _along(subject: _Subject, snapshots: Mapping[int, Callable[[], LatentMethod]]) -> list[tuple[Any, ...]]:
    """The swap of all slots at each training step, by forced answers."""
    rows = []
    for step, make in snapshots.items():
        examples = [p.example for p in subject.prompts]
        size = max(map(len, subject.batches))
        then = _Subject(make().eval(), subject.task, examples, subject.decoding, size, subject.seed)
        own = then.think()
        if any(bool(t.mask.any()) for t in own):
            given = {"own": own, "other": change_named("shuffled")(own)}
            replies = {(name, "forced"): then.answers(t, forced=True)[1] for name, t in given.items()}
            rows += _swaps(then, replies, str(step))
    return rows


def _readers(subject: _Subject, own: Sequence[Thoughts], notes: list[str]) -> list[tuple[Any, ...]]:
    """What a linear reader finds of each label in all thoughts side by side, and in the question's mean embedding."""
    prompts, backbone = subject.prompts, subject.method.backbone
    most = max(t.mask.shape[2] for t in own)
    vectors = np.zeros((len(own), most, own[0].vectors.shape[-1]), dtype=np.float32)
    for k, t in enumerate(own):
        vectors[k, : t.mask.shape[2]] = (t.vectors[0, 0] * t.mask[0, 0, :, None]).numpy()
    words = np.stack([backbone.embed(p.question).float().mean(0).cpu().numpy() for p in prompts])
    clouds, rows = (_narrow(vectors.reshape(len(own), -1)), _narrow(words)), []
    labels: dict[str, list[Any]] = {"answer": subject.gold}
    labels |= {name: [p.example.labels[name] for p in prompts] for name in prompts[0].example.labels}
    unread = []
    for name, values in labels.items():
        try:
            one = reading(*clouds, values, level=LEVEL, seed=subject.seed)
        except ValueError:  # one value, or another for nearly every question
            unread.append(name)
            continue
        rows.append(
            (name, one.found.mean, one.found.low, one.found.high, one.others, one.gain.mean, one.gain.low,
             one.gain.high, one.floor, one.entropy, one.classes, one.found.n)
        )  # fmt: skip
    if unread:
        notes.append(f"labels of which fewer than two values are frequent are not read: {', '.join(unread)}")
    return rows


def _narrow(x: np.ndarray) -> np.ndarray:
    return x if x.shape[1] <= WIDEST else principal_components(x, min(COMPONENTS, len(x) - 1))


def _attention(subject: _Subject, examples: Sequence[Example], notes: list[str]) -> tuple[list[tuple[Any, ...]], int]:
    """Mass of the last layer's attention on thoughts over their share of what is read, along free answers; and how many
    of these answers hold thoughts."""
    if subject.method.needs != "model":
        notes.append("attention is not looked at: the method brings a language model of its own")
        return [], 0
    seen: Any = along_answers(subject.method, subject.task, examples, subject.decoding, subject.seed)
    means = seen[seen["share"] > 0].groupby("example")[["mass", "share"]].mean()
    within = int(seen.loc[seen["thought"].astype(bool), "example"].nunique())
    if len(means) < 2:
        notes.append("attention on thoughts is not looked at: fewer than two of these answers read any")
        return [], within
    if within:
        notes.append(f"{within} of {len(examples)} answers hold thoughts between their words, which are not swapped")
    values = {"mass": means["mass"], "share": means["share"], "over share": means["mass"] / means["share"]}
    found = {name: paired_difference(one, 0 * one, LEVEL) for name, one in values.items()}
    return [(name, one.mean, one.low, one.high, one.n) for name, one in found.items()], within
