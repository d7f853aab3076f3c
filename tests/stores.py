"""Small valid stores made with numpy alone, with a planted state of the thoughts."""

import json
from typing import Literal

import numpy as np
import xarray as xr

from workbench.store import SCHEMA, check


def vectors(
    state: Literal["healthy", "merged", "collapsed"], shape: tuple[int, int, int, int], seed: int = 0
) -> np.ndarray:
    """Thoughts [example, path, step, feature] whose state is known.

    healthy: each slot has its own mean and depends on the question (relative spread about 0.5);
    merged: the slots of an example are the same vector, which depends on the question;
    collapsed: every thought is one vector, up to a thousandth.
    """
    examples, paths, steps, feature = shape
    rng = np.random.default_rng(seed)
    slot = rng.normal(size=(1, 1, steps, feature))
    if state == "healthy":
        return slot + rng.normal(size=shape)
    if state == "merged":
        return rng.normal(size=feature) + rng.normal(size=(examples, paths, 1, feature)) + 0.05 * rng.normal(size=shape)
    return rng.normal(size=feature) + 0.001 * rng.normal(size=shape)


def synthetic_store(
    examples: int = 12,
    paths: int = 1,
    steps: int = 4,
    feature: int = 8,
    draws: int = 1,
    *,
    reasoning: int = 3,
    reference: int = 32,
    state: Literal["healthy", "merged", "collapsed"] = "healthy",
    accuracy: float = 0.6,
    method: str = "lta_thinker",
    task: str = "arith-shift",
    seed: int = 0,
    masked: bool = False,
    start: int = 0,
) -> xr.Dataset:
    """A valid store. Right paths are moved along the first feature, so that a projection can show correctness.

    reasoning=0 leaves out gold steps, reference=0 leaves out token embeddings, steps=0 is a method without thoughts.
    masked=True ends some paths before the last step. Example ids count from `start`. With reasoning,
    label_critical_step is the most answer-like step of every example but the first.
    """
    rng = np.random.default_rng(seed)
    gold = rng.integers(1, 50, size=examples)
    correct = rng.random((examples, paths, draws)) < accuracy
    thought = vectors(state, (examples, paths, steps, feature), seed)
    if state == "healthy" and steps:
        thought[..., 0] += 2.0 * correct.mean(-1, keepdims=True)
    mask = np.ones((examples, paths, steps), dtype=bool)
    if masked and steps > 1:
        mask[::3, :, -1] = False
    prediction = np.where(correct, gold[:, None, None], gold[:, None, None] + rng.integers(1, 4, correct.shape)).astype(
        str
    )
    unread = ~correct & (rng.random(correct.shape) < 0.2)
    prediction = np.where(unread, "", prediction)
    step, draw = ("example", "path", "step"), ("example", "path", "draw")
    variables = {
        "thought": ((*step, "feature"), np.where(mask[..., None], thought, 0).astype(np.float16)),
        "mask": (step, mask),
        "token": (step, np.full(mask.shape, -1)),
        "signal_entropy": (step, rng.random(mask.shape).astype(np.float32)),
        "text": (draw, np.where(unread, "so it is", np.char.add("so #### ", prediction))),
        "prediction": (draw, prediction),
        "correct": (draw, correct),
        "length": (draw, rng.integers(3, 20, correct.shape)),
        "finished": (draw, ~unread),
    }
    labels = {
        "label_operations": rng.integers(1, 4, examples),
        "label_shift": rng.integers(0, 2, examples),
    }
    if reference:
        variables["reference"] = (("reference", "feature"), rng.normal(size=(reference, feature)).astype(np.float16))
    if reasoning:
        present = np.arange(reasoning) < rng.integers(1, reasoning + 1, (examples, 1))
        answer = np.where(present, rng.uniform(-0.5, 0.9, present.shape), np.nan).astype(np.float32)
        question = np.where(present, rng.uniform(-0.5, 0.9, present.shape), np.nan).astype(np.float32)
        step_text = np.where(present, np.array([f"{k} + 1 = {k + 1}" for k in range(reasoning)]), "")
        variables["similarity_answer"] = (("example", "reasoning"), answer)
        variables["similarity_question"] = (("example", "reasoning"), question)
        variables["step_text"] = (("example", "reasoning"), step_text)
        critical = np.nanargmax(answer, axis=1)
        critical[0] = -1  # no critical step is known
        labels["label_critical_step"] = critical
    names = ("Tom", "Ann", "Max", "Eva")
    coords = {
        "example": np.array([f"{start + k:04d}" for k in range(examples)]),
        "question": ("example", np.array([f"{names[k % 4]} has {gold[k]} pens. How many?" for k in range(examples)])),
        "gold": ("example", gold.astype(str)),
        **{name: ("example", values) for name, values in labels.items()},
    }
    attrs = {
        "schema": SCHEMA,
        "method": method,
        "config": "steps: 4\n",
        "backbone": "data/backbones/nano",
        "task": task,
        "split": "dev",
        "seed": seed,
        "versions": json.dumps({"numpy": np.__version__}),
        "commit": "0" * 40,
        "created": "2026-01-31T12:00:00+00:00",
        "seconds": 1.5,
    }
    dataset = xr.Dataset(variables, coords, attrs)
    check(dataset)
    return dataset
