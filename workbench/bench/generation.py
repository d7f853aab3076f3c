"""Speed of writing answers: as separate calls, then with each shortcut in turn, and the floor below.

    separate    a call per draw: its own prefill, then token by token, with transformers' cache and attention
    together    one prefill for all draws, whose copies each draw reads
    shared      one prefill that all draws read (see workbench/backbone/attention.py)

    floor of a step = (bytes of the weights + bytes of keys and values that are read) / copy rate of the machine

Answers are of a fixed length here: nothing stops them. Caches can beat the floor where the model fits into them.
"""

from dataclasses import replace
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..backbone import Backbone, Decoding
from ..backbone.generation import generate
from ..backbone.thoughts import Made, State, Step
from ..evidence.collect import collect
from ..methods import build
from ..methods.lt_tuning import LTTuning
from ..tasks import load_task
from .machine import Timer, alternating, copy_rate


class Endless(Backbone):
    """A backbone whose answers end at their limit only."""

    @property
    def stops(self) -> frozenset[int]:
        return frozenset()


class Restless(Backbone):
    """A backbone of which one token in 60 ends an answer, so that lengths differ."""

    @property
    def stops(self) -> frozenset[int]:
        return frozenset(range(0, len(self.table), 60))


def generation(
    backbone: Backbone,
    *,
    prompt: int = 300,
    answer: int = 100,
    draws: int = 10,
    repeats: int = 5,
    seed: int = 0,
    timer: Timer = "wall",
    rate: float | None = None,
) -> dict[str, Any]:
    """Seconds for `draws` answers of `answer` tokens to one question of `prompt` tokens, and what they say.

    Each time is the median over alternating repeats, with quartiles. `timer="cpu"` counts the seconds this process has
    computed: on a busy machine they vary less. `rate`: the machine's bytes per second, measured unless given.
    """
    writer = Endless(backbone.model, backbone.tokenizer, backbone.name)
    row, decoding = _rows(writer, [prompt], seed)[0], Decoding(answer, temperature=1.0)
    seconds = alternating(
        {
            "prefill": lambda: generate(writer, [row], Decoding(1)),
            "separate": lambda: [generate(writer, [row], decoding, seeds=[k], plain=True) for k in range(draws)],
            "together": lambda: generate(writer, [row], decoding, seeds=[0], draws=draws, plain=True),
            "shared": lambda: generate(writer, [row], decoding, seeds=[0], draws=draws),
        },
        repeats,
        backbone.device,
        timer,
    )
    prefill, rungs = seconds.pop("prefill"), seconds
    weights, token, rate = _weights(backbone), backbone.bytes_per_token, rate or copy_rate(backbone.device)
    own = draws * answer / 2  # tokens of answers that a step reads, on the mean
    read = {"separate": draws * prompt + own, "together": draws * prompt + own, "shared": prompt + own}
    for name, row_of in rungs.items():
        calls = draws if name == "separate" else 1
        row_of["speedup"] = rungs["separate"]["median"] / row_of["median"]
        row_of["floor"] = max(answer - 1, 1) * (calls * weights + token * read[name]) / rate
        row_of["over_floor"] = (row_of["median"] - calls * prefill["median"]) / row_of["floor"]
    return {
        f"speedup_draws{draws}": rungs["shared"]["speedup"],
        "over_floor": rungs["shared"]["over_floor"],
        "prefill": prefill,
        "weight_bytes": weights,
        "cache_bytes_per_token": token,
        "copy_rate": rate,
        "shape": {"prompt": prompt, "answer": answer, "draws": draws},
        "repeats": repeats,
        "timer": timer,
        "rungs": rungs,
    }


def writing_thoughts(
    backbone: Backbone,
    *,
    questions: int = 16,
    prompt: int = 100,
    answer: int = 60,
    every: int = 5,
    repeats: int = 3,
    seed: int = 0,
    timer: Timer = "wall",
) -> dict[str, Any]:
    """Seconds for answers in which each row's every so many-th input is a thought of LT-Tuning, over plain decoding.

    plain: as many inputs, words alone. ready: LT-Tuning's step where no row thinks. thoughts: rows think at places of
    their own, so that some row does at nearly every input: the last layer's state is kept beside the output, and the
    mean word of each row's nucleus needs its distribution sorted, over all rows.
    """
    method = build("lt-tuning", Endless(backbone.model, backbone.tokenizer, backbone.name))
    assert isinstance(method, LTTuning)
    own = Endless(method.backbone.model, method.backbone.tokenizer, backbone.name)
    rows, decoding = _rows(own, [prompt + k for k in range(questions)], seed), Decoding(answer)
    make, free = method.maker(method.config.mode), method.writing([], decoding)

    def thinks(state: State) -> Made:
        made = make(state)
        place = state.rows if state.count is None else state.rows + state.count
        return replace(made, words=state.logits.argmax(-1).masked_fill(place % every == 0, -1))

    def ready(state: State) -> Made:
        hidden = torch.arange(state.logits.shape[-1], device=state.logits.device) == method.mark
        return free(replace(state, logits=state.logits.masked_fill(hidden, -torch.inf)))

    def run(step: Step | None) -> None:
        layers = () if step is None else method.layers
        generate(own, rows, decoding, step=step, layers=layers)

    ways = {"plain": None, "ready": ready, "thoughts": thinks}
    with torch.no_grad():
        rungs = alternating({name: partial(run, step) for name, step in ways.items()}, repeats, backbone.device, timer)
    shape = {"questions": questions, "prompt": prompt, "answer": answer, "every": every}
    over = rungs["thoughts"]["median"] / rungs["plain"]["median"]
    more = {"over_plain": over, "over_plain_ready": rungs["ready"]["median"] / rungs["plain"]["median"]}
    return {**more, "shape": shape, "repeats": repeats, "timer": timer, "rungs": rungs}


def queueing(
    backbone: Backbone,
    *,
    questions: int = 32,
    prompt: int = 100,
    answer: int = 120,
    batch_size: int = 8,
    repeats: int = 3,
    seed: int = 0,
    timer: Timer = "wall",
) -> dict[str, Any]:
    """Seconds to answer questions of unequal answers: batch after batch, plainly and shared, and from a queue."""
    writer = Restless(backbone.model, backbone.tokenizer, backbone.name)
    rows = _rows(writer, [prompt + k for k in range(questions)], seed)
    decoding, seeds = Decoding(answer, temperature=1.0), list(range(questions))
    cuts = [slice(k, k + batch_size) for k in range(0, questions, batch_size)]
    rungs = alternating(
        {
            "plain": lambda: generate(writer, rows, decoding, seeds=seeds, batch_size=batch_size, plain=True),
            "batches": lambda: [generate(writer, rows[cut], decoding, seeds=seeds[cut]) for cut in cuts],
            "queue": lambda: generate(writer, rows, decoding, seeds=seeds, batch_size=batch_size),
        },
        repeats,
        backbone.device,
        timer,
    )
    for row in rungs.values():
        row["speedup"] = rungs["plain"]["median"] / row["median"]
    shape = {"questions": questions, "prompt": prompt, "answer": answer, "batch_size": batch_size}
    return {"speedup_queue": rungs["queue"]["speedup"], "shape": shape, "repeats": repeats, "rungs": rungs}


def collecting(
    backbone: Backbone, *, count: int = 512, batch_size: int = 128, repeats: int = 3, timer: Timer = "wall"
) -> dict[str, Any]:
    """Seconds of `collect` (chain of thought on arith, greedy) over those of the writing alone."""
    task, method = load_task("arith"), build("cot", backbone)
    examples = task.examples("test", count)
    prompts = sorted((method.render(example, task) for example in examples), key=lambda p: len(p.before))
    rows = [backbone.embed(torch.cat([p.before, p.after])) for p in prompts]
    decoding = Decoding(task.answer_tokens)
    rungs = alternating(
        {
            "generate": lambda: [
                generate(backbone, rows[k : k + batch_size], decoding) for k in range(0, len(rows), batch_size)
            ],
            "collect": lambda: collect(method, task, examples, batch_size=batch_size),
        },
        repeats,
        backbone.device,
        timer,
    )
    over = rungs["collect"]["median"] / rungs["generate"]["median"]
    return {"over_generate": over, "examples": len(examples), "repeats": repeats, "rungs": rungs}


def _rows(backbone: Backbone, lengths: list[int], seed: int) -> list[Tensor]:
    """Random prompts as vectors."""
    chance = torch.Generator().manual_seed(seed)
    return [backbone.embed(torch.randint(6, len(backbone.table), (n,), generator=chance)) for n in lengths]


def _weights(backbone: Backbone) -> int:
    """Bytes of the weights that a step reads: all, but of an input table that is no output head a few rows only."""
    tied = backbone.model.get_output_embeddings().weight is backbone.table
    skipped = 0 if tied else backbone.table.nbytes
    return sum(p.nbytes for p in backbone.model.parameters()) - skipped
