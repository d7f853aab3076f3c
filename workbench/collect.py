"""Run any method over examples: its thoughts, what it answers with them, and the vectors themselves, in one store."""

import json
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, replace
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml
from tqdm import tqdm

from . import runs, store
from .backbone import Backbone, Completion, Decoding, pad
from .changes import Change, change_named
from .lens import words
from .methods import LatentMethod, Prompt, Thoughts
from .methods.mixtures import mixed
from .tasks import Example, Task
from .thoughts import Mixture, joined

REFERENCE_ROWS = 1024  # token embeddings kept beside the thoughts, to measure them against


@torch.no_grad()
def collect(
    method: LatentMethod,
    task: Task,
    examples: Sequence[Example],
    *,
    split: str = "test",
    decoding: Decoding | None = None,
    paths: int = 1,
    draws: int = 1,
    batch_size: int = 128,
    seed: int = 0,
    change: str | Change | None = None,
    readout: int = 0,
) -> xr.Dataset:
    """The store of `method` on `examples`: `paths` thoughts per question, `draws` answers per thought.

    `change` turns the thoughts of all examples into others before they are answered with and stored: a name or a
    function of `changes`, e.g. "shuffled", "noised:0.5". `decoding` is greedy unless given; without its own length it
    takes the task's `answer_tokens`. `readout`: how many of the words that a thought is read as are kept, by logit lens
    and by nearest embedding (see `lens`). Nothing depends on `batch_size` beyond rounding.
    """
    if not examples:
        raise ValueError("no examples to collect; give at least one")
    for what, number in {"paths": paths, "draws": draws, "batch_size": batch_size}.items():
        if number < 1:
            raise ValueError(f"{what}={number}: it must be at least 1")
    decoding = decoding or Decoding()
    decoding = replace(decoding, max_new_tokens=decoding.max_new_tokens or task.answer_tokens)
    method.eval()
    started = time.time()
    prompts = [method.render(example, task) for example in examples]
    order = sorted(range(len(prompts)), key=lambda i: len(prompts[i].before))  # batches of like lengths: less padding
    batches = [order[start : start + batch_size] for start in range(0, len(order), batch_size)]
    thoughts: list[Thoughts] = [_empty()] * len(prompts)
    similar: list[dict[str, torch.Tensor]] = [{}] * len(prompts)
    answers: list[list[list[Completion]]] = [[]] * len(prompts)
    for places in batches:
        batch = [prompts[i] for i in places]
        found, near = method.think(batch, paths=paths), method.step_similarities(batch)
        for k, place in enumerate(places):
            thoughts[place] = _one(found, k, whole=change is not None or readout > 0)
            similar[place] = {name: value[k].cpu() for name, value in near.items()}
    if change is not None:
        thoughts = (change_named(change) if isinstance(change, str) else change)(thoughts)
    bar = tqdm(total=len(prompts), desc=f"answer {method.name} on {task.name}", delay=2)  # seconds; none if faster
    for places in batches:
        batch = _together([thoughts[i] for i in places], method.backbone)
        written = method.answer([prompts[i] for i in places], batch, decoding, draws=draws, seed=seed)
        for place, found in zip(places, written, strict=True):
            answers[place] = found
        bar.update(len(places))
    bar.close()
    thoughts = [_with_answers(method, one, found) for one, found in zip(thoughts, answers, strict=True)]
    read: dict[str, np.ndarray] = {}
    if readout:
        vectors, there = _stack([t.vectors for t in thoughts], 0.0), _stack([t.mask for t in thoughts], False)
        read = words(method.backbone, vectors, there, readout)
    attrs = {
        "split": split,
        "seed": seed,
        "decoding": json.dumps(asdict(decoding)),
        "parsing": task.parsing,
        "prompts": task.prompts.name if task.prompts else "",
        "batch_size": batch_size,
        "changed": change if isinstance(change, str) else getattr(change, "__name__", repr(change) if change else ""),
        "remark": method.remark(thoughts),
        "seconds": time.time() - started,
    }
    cuts = (slice(start, start + batch_size) for start in range(0, len(prompts), batch_size))
    steps = [own for cut in cuts for own in _step_vectors(method, prompts[cut])]
    return _dataset(method, task, examples, thoughts, read, similar, steps, answers, attrs)


def _empty() -> Thoughts:
    return Thoughts(torch.zeros(1, 1, 0, 1), torch.zeros(1, 1, 0, dtype=torch.bool))


def _one(thoughts: Thoughts, k: int, whole: bool) -> Thoughts:
    """The thoughts of one example of a batch, on the CPU; mixtures stand for their vectors unless `whole`."""

    def own(value: torch.Tensor) -> torch.Tensor:
        return value[k : k + 1].cpu()

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


def _places(
    method: LatentMethod, thoughts: Sequence[Thoughts], answers: Sequence[list[list[Completion]]]
) -> dict[str, Any]:
    """Where thoughts stand within answers, if any do: of which draw, behind how many tokens and characters."""
    if all(t.draws is None for t in thoughts):
        return {}
    none = [torch.full(t.mask.shape, -1) for t in thoughts]
    draws = _stack([t.draws if t.draws is not None else own for t, own in zip(thoughts, none, strict=True)], -1)
    places = _stack([t.places if t.places is not None else 0 * own for t, own in zip(thoughts, none, strict=True)], 0)
    offsets = np.zeros_like(places)
    for i, path, step in np.argwhere(draws >= 0).tolist():
        offsets[i, path, step] = _offset(method, answers[i][path][draws[i, path, step]], places[i, path, step])
    found = {"thought_draw": draws, "thought_place": places, "thought_offset": offsets}
    return {name: (store.STEP, values.astype(np.int32)) for name, values in found.items()}


def _offset(method: LatentMethod, answer: Completion, place: int) -> int:
    """Characters of an answer's text that its first tokens are; what a method has put before them counts too."""
    decode = method.backbone.tokenizer.decode
    whole = decode(answer.tokens, skip_special_tokens=True)
    lead = len(answer.text) - len(whole) if answer.text.endswith(whole) else 0
    return min(lead + len(decode(answer.tokens[:place], skip_special_tokens=True)), len(answer.text))


def _together(thoughts: Sequence[Thoughts], backbone: Backbone) -> Thoughts:
    """Single-example thoughts as one batch; fewer steps are padded (mask false)."""

    def stack(parts: Sequence[torch.Tensor], fill: Any) -> torch.Tensor:
        return torch.from_numpy(_stack(parts, fill)).to(backbone.device)

    mixtures = [t.mixture for t in thoughts if t.mixture is not None]
    tokens = [t.tokens for t in thoughts if t.tokens is not None]
    if len(mixtures) == len(thoughts):
        vectors = mixed(backbone, stack([m.tokens for m in mixtures], -1), stack([m.weights for m in mixtures], 0.0))
    else:
        vectors = stack([t.vectors for t in thoughts], 0.0)
    mask = stack([t.mask for t in thoughts], False)
    return Thoughts(vectors, mask, stack(tokens, -1) if len(tokens) == len(thoughts) else None)


def _dataset(
    method: LatentMethod,
    task: Task,
    examples: Sequence[Example],
    thoughts: Sequence[Thoughts],
    read: dict[str, np.ndarray],
    similar: Sequence[dict[str, torch.Tensor]],
    steps: Sequence[torch.Tensor],
    answers: Sequence[list[list[Completion]]],
    attrs: dict[str, Any],
) -> xr.Dataset:
    """Everything collected, as a checked store."""
    step, draw = ("example", "path", "step"), ("example", "path", "draw")

    def each(value: Callable[[Completion], Any], dtype: Any) -> np.ndarray:
        return np.array([[[value(c) for c in path] for path in example] for example in answers], dtype=dtype)

    predictions = [[[task.parse(c.text) for c in path] for path in example] for example in answers]
    right = [
        [[p is not None and task.same(p, example.answer) for p in path] for path in found]
        for found, example in zip(predictions, examples, strict=True)
    ]
    data: dict[str, Any] = {
        **_vectors(thoughts),
        "mask": (step, _stack([t.mask for t in thoughts], False)),
        "text": (draw, each(lambda c: c.text, str)),
        "prediction": (
            draw,
            np.array([[[p or "" for p in path] for path in found] for found in predictions], dtype=str),
        ),
        "correct": (draw, np.array(right, dtype=bool)),
        "length": (draw, each(lambda c: len(c.tokens), np.int32)),
        "finished": (draw, each(lambda c: c.finished, bool)),
    }
    data |= _places(method, thoughts, answers)
    if any(t.tokens is not None for t in thoughts):
        tokens = [torch.full(t.mask.shape, -1) if t.tokens is None else t.tokens for t in thoughts]
        data["token"] = (step, _stack(tokens, -1))
    for name in dict.fromkeys(name for t in thoughts for name in t.signals):  # an example without thoughts may lack it
        values = [t.signals.get(name, torch.full(t.mask.shape, torch.nan)) for t in thoughts]
        data[f"signal_{name}"] = (step, _stack(values, np.nan))
    data |= {name: (store.VARIABLES.get(name, store.SIGNAL).dims, values) for name, values in read.items()}
    for name in similar[0]:
        data[f"similarity_{name}"] = (("example", "reasoning"), _stack([row[name][None] for row in similar], np.nan))
    width = max(len(example.steps) for example in examples)
    if width or similar[0]:
        texts = [[*e.steps, *[""] * (width - len(e.steps))] for e in examples]
        data["step_text"] = (("example", "reasoning"), np.array(texts, dtype=str).reshape(len(examples), width))
        data["step_vector"] = (("example", "reasoning", "feature"), _stack(steps, np.nan))
    coords: dict[str, Any] = {
        "example": np.array([e.id for e in examples], dtype=str),
        "question": ("example", np.array([e.question for e in examples], dtype=str)),
        "gold": ("example", np.array([e.answer for e in examples], dtype=str)),
        "reference": (("reference", "feature"), _reference(method)),
    }
    for name in examples[0].labels:
        coords[f"label_{name}"] = ("example", np.array([e.labels[name] for e in examples]))
    if method.training_step is not None:
        attrs = attrs | {"training_step": method.training_step}
    about = runs.describe_method(method)
    origin = runs.provenance()
    required = {
        "schema": store.SCHEMA,
        "method": method.name,
        "config": yaml.safe_dump(about["options"], sort_keys=False),
        "backbone": method.backbone.name,
        "task": task.name,
        "versions": json.dumps(origin["versions"]),
        "commit": origin["commit"],
        "created": origin["created"],
    }
    if "mixture_token" in data:
        coords |= _mixed_words(method, data["mixture_token"][1])
    dataset = xr.Dataset(data, coords, required | attrs)
    dataset = store.mixed(dataset) if "mixture_token" in data else dataset
    store.check(dataset)
    return dataset


def _vectors(thoughts: Sequence[Thoughts]) -> dict[str, Any]:
    """The thoughts, or where they are all mixtures what is mixed."""
    mixtures = [t.mixture for t in thoughts if t.mixture is not None]
    if len(mixtures) < len(thoughts):
        return {"thought": ((*store.STEP, "feature"), _stack([t.vectors for t in thoughts], 0.0))}
    return {
        "mixture_token": (store.COMPONENT, _stack([m.tokens for m in mixtures], -1)),
        "mixture_weight": (store.COMPONENT, _stack([m.weights.float() for m in mixtures], 0.0)),
    }


def _mixed_words(method: LatentMethod, tokens: np.ndarray) -> dict[str, Any]:
    """The tokens that are mixed anywhere and their embeddings."""
    used = np.unique(tokens[tokens >= 0])
    rows = method.backbone.embed(torch.from_numpy(used)).float().cpu().numpy()
    return {"vocabulary": used, "embedding": (("vocabulary", "feature"), rows)}


def _stack(parts: Sequence[torch.Tensor], fill: Any) -> np.ndarray:
    """[1, ...] tensors of unequal later sizes stacked along the first axis, missing places filled."""
    shape = [max(part.shape[axis] for part in parts) for axis in range(1, parts[0].ndim)]
    stacked = np.full((len(parts), *shape), fill, dtype=parts[0].numpy().dtype)
    for k, part in enumerate(parts):
        stacked[(k, *(slice(size) for size in part.shape[1:]))] = part[0].numpy()
    return stacked


def _step_vectors(method: LatentMethod, prompts: Sequence[Prompt]) -> list[torch.Tensor]:
    """Mean embedding of each gold step's tokens, [1, reasoning, feature]: where a thought that says it would be."""
    steps = [step for prompt in prompts for step in prompt.steps]
    means = torch.zeros(0, method.backbone.width)
    if steps:
        ids, there = (value.to(method.backbone.device) for value in pad(steps, "right"))
        total = (method.backbone.embed(ids).float() * there[..., None]).sum(1)
        means = (total / there.sum(1, keepdim=True)).cpu()
    return [own[None] for own in means.split([len(prompt.steps) for prompt in prompts])]


def _reference(method: LatentMethod) -> np.ndarray:
    """Evenly spread rows of the embedding table, float16."""
    table = method.backbone.table
    rows = torch.linspace(0, len(table) - 1, min(len(table), REFERENCE_ROWS)).long().to(table.device)
    return table[rows].detach().float().cpu().numpy().astype(np.float16)
