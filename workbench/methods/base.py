"""What a latent-reasoning method is: a module that turns questions into thought vectors.

A row the backbone reads is `[before | thoughts | after | target]`; the pieces are put in order first and padded then,
so no index arithmetic is needed anywhere.
"""

import warnings
from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from hashlib import blake2b
from typing import Any, ClassVar, Literal

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn

from ..backbone import SLOT, Backbone, Completion, Decoding
from ..backbone.endings import ending
from ..backbone.likelihood import mean_losses
from ..backbone.texts import BREAK
from ..backbone.thoughts import Step, Thoughts
from ..backbone.writing import words
from ..config import differences
from ..tasks import Example, Task

METHODS: dict[str, type["LatentMethod"]] = {}
UNKNOWN = 0.25  # share of unknown tokens in the questions from which on it is said


@dataclass(frozen=True)
class Prompt:
    """An example as ids in the backbone's tokenizer, all on the CPU: the text around the slot, and its parts.

    `begun`: the answer's mark, where `after` ends in it and the reply goes on with the answer itself. `ends`: how the
    line starts with which a reply ends; None where it ends when the model says so.
    `given`: whatever else a method's stage has made for it (`LatentMethod.start`), such as labels; tensors on the CPU.
    """

    example: Example
    before: Int[Tensor, "_"]
    after: Int[Tensor, "_"]
    target: Int[Tensor, "_"]
    question: Int[Tensor, "_"]
    steps: tuple[Int[Tensor, "_"], ...]
    answer: Int[Tensor, "_"]
    begun: str = ""
    ends: str | None = None
    given: dict[str, Tensor] = field(default_factory=dict)


@dataclass(frozen=True)
class Losses:
    """`total` and its parts, each a mean over what `LatentMethod.weigh` counts, so that batches can be averaged by it.

    `warnings` maps a sentence to a flag; the training loop says it once when the flag is true.
    """

    total: Float[Tensor, ""]
    parts: dict[str, Float[Tensor, ""]]
    warnings: dict[str, Bool[Tensor, ""]] = field(default_factory=dict)


@dataclass(frozen=True)
class Stage:
    """A leg of a curriculum: its name, its share of the epochs, what learns in it and how fast.

    fresh: whether optimisers forget what went before: "stage" at its start, "epoch" at the start of each of its epochs
    (moments and step counts begin anew). rate: its learning rates over those of the run. learns: patterns of the names
    of parameters that learn in it ("encoder.*"), of those that are trained at all; the others rest, as they are.
    schedule: how the rate falls behind its warm-up. warmup: the share of its steps; None: the run's. joined: it has no
    schedule of its own, that of the stage before goes on through it.
    """

    name: str = "train"
    share: float = 1.0
    fresh: Literal["never", "stage", "epoch"] = "never"
    rate: float = 1.0
    learns: tuple[str, ...] = ("*",)
    schedule: Literal["linear", "cosine", "constant"] = "linear"
    warmup: float | None = None
    joined: bool = False


class LatentMethod(nn.Module, ABC):
    """Write `think`; everything else has a default. Defining a class with a `name` registers it."""

    name: ClassVar[str]
    Config: ClassVar[type]
    presets: ClassVar[dict[str, Any]] = {}
    trained: ClassVar[bool] = True
    trials: ClassVar[tuple[dict[str, Any], ...]] = ()  # of one that is not trained: options to choose from on dev
    needs: ClassVar[Literal["model", "tokenizer"]] = "model"  # of the backbone given; a method may bring its own model
    stage: int | None = None  # of the stages, the one its weights were last trained in; None: all are behind them
    resting: frozenset[str] = frozenset()  # parameters that are trained, but not in the stage that is going on
    layers: tuple[int, ...] = ()  # whose states the steps of `writing` see besides the last, as in transformers
    training_step: int | None = 0  # optimiser steps behind its weights; None where the file they came from did not say

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        if "name" not in cls.__dict__:
            return
        known = METHODS.get(cls.name)
        if known is not None and (known.__module__, known.__qualname__) != (cls.__module__, cls.__qualname__):
            raise ValueError(
                f"two methods are called {cls.name!r}: {known.__module__}.{known.__qualname__} and "
                f"{cls.__module__}.{cls.__qualname__}; rename one"
            )
        METHODS[cls.name] = cls  # a re-run notebook cell replaces its own class

    def __init__(self, backbone: Backbone, config: Any):
        super().__init__()
        self.backbone, self.config = backbone, config

    def __repr__(self) -> str:
        """Three lines, not a dump of the modules: what it is, what it is set to, what it learns (on which backbone)."""
        differ = ", ".join(f"{name}={value!r}" for name, value in differences(self.config).items())
        learns = f"{self.trainable_parameters:,} numbers are trained" if self.trained else "nothing is trained"
        return (
            f"{type(self).__name__} ({self.name}) on {self.backbone.name}\n"
            f"  options: {differ or 'the defaults'}\n  {learns}"
        )

    @property
    def trainable_parameters(self) -> int:
        """How many numbers training changes."""
        return sum(p.numel() for p in self.learned().values())

    def learned(self) -> dict[str, nn.Parameter]:
        """The parameters that training changes, in whatever stage, by name."""
        return {name: p for name, p in self.named_parameters() if p.requires_grad or name in self.resting}

    def saved(self) -> dict[str, Tensor]:
        """What a weights file holds, by name: what training changes, unless a method says otherwise (buffers too).

        Everything else is as it was when the method was built.
        """
        return dict(self.learned())

    @property
    def trained_paths(self) -> int:
        """Paths of each example that a training step answers on."""
        return 1

    @abstractmethod
    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        """The thoughts of each question, from what is known at test time: never from `steps`, `answer` or `target`."""

    def oracle(self, prompts: Sequence[Prompt]) -> Thoughts:
        """Thoughts that were made from the worked steps, by a method that has such to learn from: one path each.

        What it could think at best, and never what `think` gives: asked for by its own name (`collect`'s change
        "oracle"), which the store then has.
        """
        raise ValueError(f"{self.name!r} has no oracle: it makes no thoughts from worked steps; leave out the change")

    def render(self, example: Example, task: Task) -> Prompt:
        """The example as ids: instruction, question, slot; the worked steps are the target."""
        return self.prompt(example, task, *self.backbone.around(self.message(example, task), task.opening))

    def message(self, example: Example, task: Task, thoughts: str = SLOT) -> str:
        """What the backbone is asked, `thoughts` in their place; ValueError for an example that holds our marks."""
        for text in (example.question, *example.steps, example.answer):
            for mark in (SLOT, BREAK):
                if mark in text:
                    raise ValueError(
                        f"example {example.id!r} holds the character U+{ord(mark):04X}, which means something else "
                        "here; take it out of its question, steps and answer"
                    )
        return task.message(example.question, thoughts, self.backbone.family)

    def prompt(self, example: Example, task: Task, before: Int[Tensor, "_"], after: Int[Tensor, "_"]) -> Prompt:
        """The example between the given ids of what stands around its slot."""
        ids = self.backbone.plain_ids  # none of this is a control token, whatever it says
        steps = tuple(ids(step + "\n") for step in example.steps)
        announced = ids(f"{task.mark} {example.answer}")
        end = torch.tensor([self.backbone.turn_end])
        target = torch.cat([*steps, announced, end])
        question, answer = ids(example.question), ids(example.answer)
        return Prompt(
            example, before, after, target, question, steps, answer, ends=task.mark if task.stops else None
        )  # fmt: skip

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        """Negative log-likelihood of the target behind the thoughts."""
        likelihood = self.likelihood(prompts, self.think(prompts)).mean()
        return Losses(likelihood, {"likelihood": likelihood})

    def forward(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        """`loss`, under the name that data-parallel wrappers call."""
        return self.loss(prompts, stage)

    def stages(self) -> tuple[Stage, ...]:
        """The legs of training in order; empty when there is nothing to train."""
        return (Stage(),) if self.trained else ()

    def start(self, stage: int, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """The prompts that a stage trains on, one for each of those of the task; they may differ in target and `given`.

        Called before a stage, without gradients and by every process. Others than the given ones are kept with the run:
        training that goes on in the middle of the stage finds them, and does not call this again.
        """
        return prompts

    def weigh(self, prompts: Sequence[Prompt], stage: int = 0) -> int | float:
        """What the loss of these prompts is a mean over: examples, unless a method counts tokens.

        The weight of a batch must be the sum of its parts'.
        """
        return len(prompts)

    def pace(self, name: str) -> float:
        """AdamW's rate of a parameter over that of the run; 1 unless a method knows better."""
        return 1.0

    def begin_epoch(self, stage: int, epoch: int) -> None:
        """Called before each epoch of a stage, and when training goes on within one; what is drawn may hang on it."""

    def notice(self) -> str:
        """What is to be known before training, in one sentence; mostly empty."""
        return ""

    def watched(self, prompts: Sequence[Prompt]) -> tuple[dict[str, float], tuple[str, ...]]:
        """More numbers about the probe set while training, and sentences where they are bad; mostly none."""
        return {}, ()

    def bounds(self, prompts: Sequence[Prompt]) -> Any:
        """Bounds on what the prompts' texts cost, as a table (pandas), of a method that models whole texts; else None.

        A row for each reading, with nats, standard errors, and what is a bound and what is not.
        """
        return None

    def remark(self, thoughts: Sequence[Thoughts]) -> str:
        """One sentence about the thoughts of many questions (an entry each) that a reader must know; mostly empty."""
        return ""

    def step_similarities(self, prompts: Sequence[Prompt]) -> dict[str, Float[Tensor, "example reasoning"]]:
        """Cosine of each gold step to "answer" and "question", NaN where there is no step; empty for most methods."""
        return {}

    def writing(self, prompts: Sequence[Prompt], decoding: Decoding) -> Step:
        """How answers are written, input by input: words alone, unless a method makes thoughts between them.

        prompts: one for each path, which `state.prompts` counts; `state.rows` counts their draws (`state.copies` each).
        """
        return ending(words(decoding), self.backbone, [p.ends for p in prompts])

    def answer(
        self, prompts: Sequence[Prompt], thoughts: Thoughts, decoding: Decoding, *, draws: int = 1, seed: int = 0
    ) -> list[list[list[Completion]]]:
        """Answers behind the thoughts, [example][path][draw]."""
        paths = thoughts.vectors.shape[1]
        before = self.backbone.embed_each([p.before for p in prompts])
        after = self.backbone.embed_each([p.after for p in prompts])
        vectors = thoughts.vectors[thoughts.mask].to(self.backbone.table.dtype)  # of those that are there
        own = vectors.split(thoughts.mask.sum(-1).flatten().tolist())  # by example, then path
        rows = [torch.cat([before[i // paths], found, after[i // paths]]) for i, found in enumerate(own)]
        seeds = [draw_seed(seed, p.example.id, path) for p in prompts for path in range(paths)]
        step = self.writing([p for p in prompts for _ in range(paths)], decoding)
        flat = self.backbone.generate(rows, decoding, draws=draws, seeds=seeds, step=step, layers=self.layers)
        return [flat[k : k + paths] for k in range(0, len(flat), paths)]

    def likelihood(self, prompts: Sequence[Prompt], thoughts: Thoughts) -> Float[Tensor, "example"]:
        """Mean negative log-likelihood per target token, averaged over paths.

        Nothing before the first thought needs a gradient: that prefix is read without, and gone on from.
        """
        paths = thoughts.vectors.shape[1]
        texts = [torch.cat([p.after, p.target[:-1]]) for p in prompts for _ in range(paths)]
        embeds = self.backbone.embed_each(texts)
        vectors = thoughts.vectors.flatten(0, 1).to(self.backbone.table.dtype).unbind()
        rows = [torch.cat(pair) for pair in zip(vectors, embeds, strict=True)]
        masks = thoughts.mask.flatten(0, 1).unbind()
        there = [torch.cat([own, own.new_ones(len(text))]) for own, text in zip(masks, texts, strict=True)]
        labels = [p.target for p in prompts for _ in range(paths)]
        losses = mean_losses(self.backbone, [p.before for p in prompts], rows, there, labels)
        return losses.view(len(prompts), paths).mean(1)


def prepared(method: LatentMethod, task: Task, examples: Sequence[Example], learned: bool = False) -> list[Prompt]:
    """The examples as `method` reads them, after what can be known of them before anything runs.

    ValueError or a warning for texts, with the target if it is `learned`, that are longer than the backbone's window
    (`Backbone.admit`); a warning where a quarter of the questions' tokens is unknown to its tokenizer.
    """
    prompts, backbone = [method.render(example, task) for example in examples], method.backbone
    lengths = [len(p.before) + len(p.after) + (len(p.target) - 1 if learned else 0) for p in prompts]
    backbone.admit(max(lengths, default=0))
    unknown = backbone.tokenizer.unk_token_id
    found = torch.cat([p.question for p in prompts]) if prompts else torch.zeros(0)
    share = (found == unknown).float().mean().item() if unknown is not None and len(found) else 0.0
    if share >= UNKNOWN:
        warnings.warn(
            f"{share:.0%} of the tokens in the questions of task {task.name!r} are unknown to backbone "
            f"{backbone.name!r}, which reads {backbone.tokenizer.unk_token!r} there and cannot tell such questions "
            "from one another; use a task in its words, or another backbone",
            stacklevel=2,
        )
    return prompts


def draw_seed(seed: int, example: str, path: int) -> int:
    """The seed of one example's path: whatever else is in the batch, it samples the same."""
    return int.from_bytes(blake2b(f"{seed} {example} {path}".encode(), digest_size=7).digest())
