"""A live method that answers the questions of a store with any thoughts: what `widgets.Probe` asks.

answer = answering("data/runs/two", store)
answer("arith-shift-dev-7", vectors)        the text written behind these thoughts
answer.embedding("plus")                    where a thought that says this word would be
"""

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
import xarray as xr

from ..backbone import Backbone, Decoding
from ..config import configured
from ..files import checked, from_json, shown
from ..methods import LatentMethod, Thoughts
from ..plugins import remembered
from ..runs import load_method, read_config
from ..tasks import Example, Task, load_task


class Answering:
    """Answers with given thoughts: call it with an example's id and vectors [step, feature].

    Draws nothing anew: the same thoughts get the same answer.
    """

    def __init__(
        self, method: LatentMethod, task: Task, examples: Mapping[str, Example], decoding: Decoding, seed: int = 0
    ):
        self.method, self.task, self.examples = method.eval(), task, examples
        self.decoding, self.seed = decoding, seed

    @torch.no_grad()
    def __call__(self, example: str, vectors: np.ndarray) -> str:
        """What is written behind `vectors` [step, feature] in the place of the example's thoughts; none are allowed.

        Raises ValueError for an example that the store did not have and for vectors of another width.
        """
        backbone, width = self.method.backbone, self.method.backbone.width
        if example not in self.examples:
            raise ValueError(f"no example {example!r} here: give one of the store that this was made for")
        if vectors.ndim != 2 or vectors.shape[1] != width or not np.isfinite(vectors).all():
            raise ValueError(f"thoughts of shape {vectors.shape}: give finite vectors [step, {width}]")
        prompt = self.method.render(self.examples[example], self.task)
        given = torch.from_numpy(vectors.astype(np.float32)).to(backbone.device)[None, None]
        thoughts = Thoughts(given, torch.ones(given.shape[:-1], dtype=torch.bool, device=backbone.device))
        return self.method.answer([prompt], thoughts, self.decoding, seed=self.seed)[0][0][0].text

    @torch.no_grad()
    def embedding(self, text: str) -> np.ndarray:
        """The mean embedding [feature] of a text's tokens; one word is mostly one. ValueError for an empty one."""
        ids = self.method.backbone.plain_ids(text)
        if not len(ids):
            raise ValueError("no word to embed: give a text")
        return self.method.backbone.embed(ids).float().mean(0).cpu().numpy()


def answering(
    run: str | Path | LatentMethod,
    store: xr.Dataset,
    *,
    task: Task | None = None,
    step: int | None = None,
    backbone: Backbone | None = None,
    decoding: Decoding | None = None,
) -> Answering:
    """What answers the questions of `store`, made from a run (folder, weights file, snapshot after `step`) or a method.

    task: for its prompts, None takes the run's own (needed beside a method). backbone: one that is loaded already.
    decoding: None takes the store's, so that unchanged thoughts are answered as they were. Raises ValueError where the
    store was made by another kind of method or on another backbone's width.
    """
    if isinstance(run, LatentMethod):
        if task is None:
            raise ValueError("a method without its run says nothing of the task: give task=load_task(...) too")
        method = run
    else:
        method = load_method(run, backbone, step=step)
        if task is None:
            about = read_config(run)
            remembered(about)
            layout = about.get("layout")
            task = load_task(about["task"], about.get("data"), prompts=about.get("prompts"), layout=layout)
    if method.name != store.attrs["method"] or method.backbone.width != store.sizes["feature"]:
        raise ValueError(
            f"the store holds {store.attrs['method']} thoughts of width {store.sizes['feature']}, this is "
            f"{method.name} of width {method.backbone.width}: give the run that the store was collected from"
        )
    if decoding is None:
        try:
            decoding = configured(Decoding, checked(from_json(str(store.attrs.get("decoding", "{}"))), {}, "it"))
        except ValueError as error:
            raise ValueError(f"the store's attribute 'decoding' says no decoding ({shown(error)}): give one") from error
    decoding = replace(decoding, max_new_tokens=decoding.max_new_tokens or task.answer_tokens)
    known = zip(*(store[name].values.astype(str).tolist() for name in ("example", "question", "gold")), strict=True)
    examples = {name: Example(name, question, (), gold, {}) for name, question, gold in known}
    return Answering(method, task, examples, decoding, seed=int(store.attrs["seed"]))
