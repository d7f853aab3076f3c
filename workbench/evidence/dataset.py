"""What was collected, as a store: thoughts, answers, worked steps, read-outs and where all of it comes from."""

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
import xarray as xr
import yaml

from .. import runs, store
from ..analysis.lens import words
from ..backbone import Completion, pad
from ..methods import LatentMethod, Prompt, Thoughts

REFERENCE_ROWS = 1024  # token embeddings kept beside the thoughts, to measure them against


@dataclass(frozen=True)
class Answered:
    """What a question was answered with, [path][draw]: completions, what was read in them, whether it is right."""

    completions: list[list[Completion]]
    predictions: list[list[str]]
    right: list[list[bool]]


def _places(
    method: LatentMethod, thoughts: Sequence[Thoughts], answers: Sequence[list[list[Completion]]]
) -> dict[str, Any]:
    """Where thoughts stand within answers, if any do: of which draw, behind how many tokens and characters."""
    if all(t.draws is None for t in thoughts):
        return {}
    none = [torch.full(t.mask.shape, -1) for t in thoughts]
    draws = stacked([t.draws if t.draws is not None else own for t, own in zip(thoughts, none, strict=True)], -1)
    places = stacked([t.places if t.places is not None else 0 * own for t, own in zip(thoughts, none, strict=True)], 0)
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


def dataset(
    method: LatentMethod,
    prompts: Sequence[Prompt],
    coords: dict[str, Any],
    thoughts: Sequence[Thoughts],
    similar: Sequence[dict[str, torch.Tensor]],
    answers: Sequence[Answered],
    readout: int,
    batch_size: int,
) -> xr.Dataset:
    """Everything collected, as a store."""
    step, draw = ("example", "path", "step"), ("example", "path", "draw")
    completions = [found.completions for found in answers]

    def each(value: Callable[[Completion], Any], dtype: Any) -> np.ndarray:
        return np.array([[[value(c) for c in path] for path in example] for example in completions], dtype=dtype)

    data: dict[str, Any] = {
        **_vectors(thoughts),
        "mask": (step, stacked([t.mask for t in thoughts], False)),
        "text": (draw, each(lambda c: c.text, object)),  # of fixed width, all would be as large as the longest
        "prediction": (draw, np.array([found.predictions for found in answers], dtype=object)),
        "correct": (draw, np.array([found.right for found in answers], dtype=bool)),
        "length": (draw, each(lambda c: len(c.tokens), np.int32)),
        "finished": (draw, each(lambda c: c.finished, bool)),
    }
    data |= _places(method, thoughts, completions)
    if any(t.tokens is not None for t in thoughts):
        tokens = [torch.full(t.mask.shape, -1) if t.tokens is None else t.tokens for t in thoughts]
        data["token"] = (step, stacked(tokens, -1))
    for name in dict.fromkeys(name for t in thoughts for name in t.signals):  # an example without thoughts may lack it
        values = [t.signals.get(name, torch.full(t.mask.shape, torch.nan)) for t in thoughts]
        data[f"signal_{name}"] = (step, stacked(values, np.nan))
    if readout:
        vectors = stacked([t.vectors for t in thoughts], 0.0)
        read = words(method.backbone, vectors, data["mask"][1], readout)
        data |= {name: (store.VARIABLES.get(name, store.SIGNAL).dims, values) for name, values in read.items()}
    for name in similar[0]:
        data[f"similarity_{name}"] = (("example", "reasoning"), stacked([row[name][None] for row in similar], np.nan))
    data |= _gold_steps(method, prompts, bool(similar[0]), batch_size)
    coords = coords | {"reference": (("reference", "feature"), reference_rows(method))}
    about = runs.describe_method(method)
    origin = runs.provenance()
    attrs = {
        "schema": store.SCHEMA,
        "method": method.name,
        "config": yaml.safe_dump(about["options"], sort_keys=False),
        "backbone": method.backbone.name,
        "versions": json.dumps(origin["versions"]),
        "commit": origin["commit"],
        "created": origin["created"],
    }
    if method.training_step is not None:
        attrs["training_step"] = method.training_step
    if "mixture_token" in data:
        coords |= _mixed_words(method, data["mixture_token"][1])
    found = xr.Dataset(data, coords, attrs)
    return store.mixed(found) if "mixture_token" in data else found


def _gold_steps(method: LatentMethod, prompts: Sequence[Prompt], compared: bool, batch_size: int) -> dict[str, Any]:
    """The worked steps and where they lie, if there are any or the method has `compared` some with its thoughts."""
    steps = [prompt.example.steps for prompt in prompts]
    width = max(map(len, steps))
    if not width and not compared:
        return {}
    texts = np.array([[*own, *[""] * (width - len(own))] for own in steps], dtype=object).reshape(len(steps), width)
    cuts = (slice(start, start + batch_size) for start in range(0, len(prompts), batch_size))
    vectors = [own for cut in cuts for own in _step_vectors(method, prompts[cut])]
    return {
        "step_text": (("example", "reasoning"), texts),
        "step_vector": (("example", "reasoning", "feature"), stacked(vectors, np.nan)),
    }


def _vectors(thoughts: Sequence[Thoughts]) -> dict[str, Any]:
    """The thoughts, or where they are all mixtures what is mixed."""
    mixtures = [t.mixture for t in thoughts if t.mixture is not None]
    if len(mixtures) < len(thoughts):
        return {"thought": ((*store.STEP, "feature"), stacked([t.vectors for t in thoughts], 0.0))}
    return {
        "mixture_token": (store.COMPONENT, stacked([m.tokens for m in mixtures], -1)),
        "mixture_weight": (store.COMPONENT, stacked([m.weights.float() for m in mixtures], 0.0)),
    }


def _mixed_words(method: LatentMethod, tokens: np.ndarray) -> dict[str, Any]:
    """The tokens that are mixed anywhere and their embeddings."""
    used = np.unique(tokens[tokens >= 0])
    rows = method.backbone.embed(torch.from_numpy(used)).float().cpu().numpy()
    return {"vocabulary": used, "embedding": (("vocabulary", "feature"), rows)}


def stacked(parts: Sequence[torch.Tensor], fill: Any) -> np.ndarray:
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


def reference_rows(method: LatentMethod) -> np.ndarray:
    """The input embeddings of evenly spread tokens, float16."""
    size = len(method.backbone.table)
    rows = torch.linspace(0, size - 1, min(size, REFERENCE_ROWS)).long()
    return method.backbone.embed(rows).float().cpu().numpy().astype(np.float16)
