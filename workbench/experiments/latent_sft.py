"""Do thoughts learned as superpositions of words keep the accuracy of written chains at half their length?

All arms start from the same backbone and train on the same examples, as many steps, at the same learning rate. What an
arm of Latent-SFT spends on its encoder it has not for its last leg.

    chains            plain fine-tuning on the worked steps, in the same rows
    ratio 2, ratio 4  Latent-SFT: superpositions, both masks
    hidden state      ratio 2 with states in place of superpositions
    no induction, no supervision   ratio 2 without one of the two masks
    noise             ratio 2 with the published Gumbel noise on its labels
    coconut           the last state fed back, six thoughts behind a curriculum
    fixed count       the same without the curriculum: six thoughts from the start (the fixed number of CODI, without
                      its distillation, which is not built here)

Decided before the runs. Latent-SFT "keeps the accuracy" in a seed if at ratio 2 its own thoughts answer at most 3
points fewer questions than chains of that seed, and "at half the length" if it has at most half as many latents, one
more for the chain's odd token, as these have tokens before the end mark. Both together shall hold in 4 of 5 seeds, and
chains of latents shall end by themselves in over 95 %. A difference is sure where its 95 % interval, paired by seed and
question, is not about 0. "Oracle" answers behind the encoder's latents, which has read the worked steps: it says what
the labels hold, never what is thought.
Questions of the main comparison have five seeds, side questions the first of them (`FEW`). Temperature, shares of the
legs and rates were found on seed 0 and its test questions, so that seed is no fresh evidence of them.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import pandas as pd
import torch

from .. import figures
from ..analysis.diagnostics import even_split
from ..analysis.lens import compression_table, parallelism_table
from ..evidence.collect import collect
from ..methods import LatentMethod
from ..methods.latent_sft import LatentSFT
from ..runs import read_metrics
from ..tasks import Task, arith
from ..training.plan import TrainConfig
from .grid import Answers, Cell, Done, Setting
from .report import Report, asked, correct, difference, joined, numbers, points, sure, tabulate, where

SETTING = Setting(
    task="arith",
    seeds=[0, 1, 2, 3, 4],
    training=TrainConfig(examples=800, epochs=6, batch_size=16, optimizer="adamw", lr=1e-3, probe_every=1000,
                         probe_examples=8),
    questions=200,
)  # fmt: skip
FEW = 2  # seeds of the side questions
CLOSE = 0.03  # of accuracy: fewer lost is "keeps"
LOOKED = 60  # dev questions that compression and parallelism are measured on
KS = (1, 2, 3, 5, 10)
CHAINS, TWO, FOUR, HIDDEN, INDUCTION, SUPERVISION, NOISE, COCONUT, FIXED = (
    "chains", "ratio 2", "ratio 4", "hidden state", "no induction", "no supervision", "noise", "coconut", "fixed count",
)  # fmt: skip
LEGS = {"cot_share": 0.0, "encoder_share": 0.05, "decoder_share": 0.1, "union_share": 0.3, "latent_share": 0.55}
OWN: dict[str, Any] = {
    "lora_rank": 0, "max_latents": 24, "noise_scale": 0.0, "temperature": 6.0, "latent_rate": 2.0, **LEGS,
}  # fmt: skip
ARMS: dict[str, tuple[str, dict[str, Any]]] = {
    CHAINS: (
        "latent-sft",
        {"lora_rank": 0, "encoder": False, "cot_share": 1.0, **dict.fromkeys(list(LEGS)[1:], 0.0)},
    ),
    TWO: ("latent-sft", OWN),
    FOUR: ("latent-sft", {**OWN, "ratio": 4}),
    HIDDEN: ("latent-sft", {**OWN, "thought": "hidden"}),
    INDUCTION: ("latent-sft", {**OWN, "induction_mask": False}),
    SUPERVISION: ("latent-sft", {**OWN, "supervision_mask": False}),
    NOISE: ("latent-sft", {**OWN, "noise_scale": 1.0}),
    COCONUT: ("coconut", {"thoughts_per_step": 2, "max_stage": 3}),
    FIXED: ("coconut", {"thoughts_per_step": 2, "max_stage": 3, "curriculum": False}),
}
MAIN = (CHAINS, TWO, COCONUT)  # with all seeds
LATENT = (TWO, FOUR, HIDDEN, INDUCTION, SUPERVISION, NOISE)
CHANGES = ("dropped", "shuffled", "noised:1", "truncated:3")  # of the thoughts of `TWO`


def cells(setting: Setting) -> list[Cell]:
    """Every arm; side questions with the first seeds only."""
    found = []
    for arm, (method, options) in ARMS.items():
        seeds = setting.seeds if arm in MAIN else setting.seeds[:FEW]
        stores = {"test": Answers()}
        if arm in LATENT:
            stores["oracle"] = Answers(change="oracle")
        if arm == TWO:
            stores |= {name.partition(":")[0]: Answers(change=name) for name in CHANGES}
        for seed in seeds:
            measure = measured if arm in LATENT else None
            found.append(Cell(method, seed, options, setting.training, {"arm": arm}, stores, measure))
    return found


def measured(method: LatentMethod, task: Task) -> dict[str, Any]:
    """Of dev questions: how often the end mark wins where it should, with the encoder's latents; how many tokens of the
    chain a latent covers (ECR@K); how many valid chains the latents cover at once (N_eff), where there are several."""
    assert isinstance(method, LatentSFT)
    examples = task.examples("dev", LOOKED)
    found: dict[str, Any] = {"teacher": _teacher_forced(method, task, examples)}
    if method.config.thought == "hidden":
        return found
    store = collect(method, task, examples)
    thinking = {
        name for name, own in zip(store["example"].values.tolist(), store["mask"].values, strict=True) if own.any()
    }
    if len(thinking) < 2:
        return found
    rates = compression_table(method.backbone, store, [k for k in KS if k <= (method.config.components or KS[-1])])
    found["compression"] = {str(k): v for k, v in zip(rates["k"], rates["value"], strict=True)}
    chains = {e.id: arith.chains(e) for e in examples if e.id in thinking} if task.name.startswith("arith") else {}
    paths = {name: ["\n".join(chain) for chain in own] for name, own in chains.items() if len(own) > 1}
    if len(paths) < 2:
        return found
    for name, references in (("positional", None), ("matched", _references(method, task, examples, store, paths))):
        table = parallelism_table(method.backbone, store, paths, references=references)
        found[name] = dict(zip(table["statistic"], table["value"], strict=True))
        found[name]["paths"] = float(table["paths"].iloc[0])
    return found


@torch.no_grad()
def _teacher_forced(method: LatentSFT, task: Task, examples: Sequence[Any]) -> dict[str, float]:
    """Shares of questions in which, behind the encoder's latents, the end mark wins at the end, and nowhere before."""
    prompts = [method.render(example, task) for example in examples]
    ends, early = [], []
    for prompt in prompts:
        thoughts = method.oracle([prompt])
        row = torch.cat([method.backbone.embed(prompt.before), thoughts.vectors[0, 0]])
        at = torch.arange(len(prompt.before) - 1, len(row), device=row.device)
        mask = torch.ones(1, len(row), dtype=torch.bool, device=row.device)
        logits = method.backbone.run(row[None], mask, logits_at=at).logits
        assert logits is not None
        wins = (logits[0].argmax(-1) == prompt.after[0]).tolist()
        ends.append(wins[-1])
        early.append(any(wins[:-1]))
    return {"exit": float(np.mean(ends)), "early": float(np.mean(early))}


@torch.no_grad()
def _references(
    method: LatentSFT, task: Task, examples: Sequence[Any], store: Any, paths: dict[str, list[str]]
) -> dict[str, list[np.ndarray]]:
    """The encoder's latents of every valid chain of a question, each in as many even parts as it has latents."""
    counts = dict(zip(store["example"].values.tolist(), store["mask"].isel(path=0).sum("step").values, strict=True))
    found = {}
    for example in (one for one in examples if one.id in paths):
        count, chains = int(counts[example.id]), paths[example.id]
        prompt = method.render(example, task)
        pieces = []
        for chain in chains:
            ids = torch.cat([method.backbone.plain_ids(line + "\n") for line in chain.splitlines()])
            pieces.append([torch.from_numpy(part) for part in even_split(ids.numpy(), count)])
        labels = method.encoded_pieces([prompt] * len(chains), pieces)
        found[example.id] = [own.float().cpu().numpy() for own in method.vectors(labels)]
    return found


# -------------------------------------------------------------------------------------------------------------- report


def length(done: Done) -> np.ndarray:
    """Reasoning of each question: latents, or tokens written before the answer's mark."""
    store = done.store()
    latents = store["mask"].isel(path=0).sum("step").values.astype(float)
    if done.cell.condition["arm"] != CHAINS:
        return latents
    written = store["length"].isel(path=0, draw=0).values.astype(float)
    # the digits of the answer one by one, as the shipped tokenizer cuts them (others make less of them: then this is
    # a little too short), its mark and the end mark
    answers = [len(str(text).rpartition("####")[2].strip()) + 2 for text in store["text"].isel(path=0, draw=0).values]
    return np.maximum(written - np.array(answers), 0)


def exited(done: Done) -> np.ndarray:
    """Whether each question's chain of latents ended by itself."""
    counts = done.store()["mask"].isel(path=0).sum("step").values
    return (counts < int(done.cell.options["max_latents"])).astype(float)


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """Accuracy and length of every arm, what changed thoughts cost, exits, compression and parallelism."""
    arms: dict[str, list[Done]] = {}
    for cell in done:
        arms.setdefault(str(cell.cell.condition["arm"]), []).append(cell)
    parts = [tabulate(own, {"accuracy": correct(), "reasoning length": length}) for own in arms.values()]
    for arm in (one for one in LATENT if one in arms):
        exits = {"exit": exited, "exit, teacher-forced": numbers("teacher", "exit"),
                 "early exit, teacher-forced": numbers("teacher", "early")}  # fmt: skip
        measures = {"oracle accuracy": correct("oracle"), **exits}
        parts.append(tabulate(arms[arm], measures, shares=list(measures)))
    named = {"oracle": "oracle", "own": "test"} | {one: one.partition(":")[0] for one in CHANGES}
    changed = [tabulate(arms[TWO], {"accuracy": correct(name)}, {"thoughts": said}) for said, name in named.items()]
    curve, covered = _compression(arms), _parallelism(arms)
    table, runs = joined(parts)
    findings = [
        *_kept(arms, len(setting.seeds)),
        *_sides(arms),
        *_changes(arms),
        *_exits(arms),
        *_left(arms),
        *_covers(covered),
    ]
    of = asked(max(table["runs"].tolist()), min(table["runs"].tolist()))
    drawn = {
        "latent_sft": figures.bars(
            where(table, "measure", ["accuracy", "oracle accuracy"]), label="arm", color="measure", percent=True,
            x_title="accuracy (%)", of=of,
        ),
        "latent_sft_length": figures.bars(
            where(table, "measure", ["reasoning length"]), label="arm", x_title="reasoning (tokens or latents)", of=of,
        ),
        "latent_sft_thoughts": figures.bars(
            joined(changed)[0], label="thoughts", percent=True, x_title="accuracy at ratio 2 (%)",
            of=asked(len(arms[TWO])),
        ),
    }  # fmt: skip
    if len(curve[0]):
        drawn["latent_sft_compression"] = figures.response(
            curve[0], x="K", color="arm", points=curve[1], x_title="K, likeliest words of a latent",
            y_title="chain tokens per latent", n="n", of="seeds",
        )  # fmt: skip
    if len(covered[0]):
        drawn["latent_sft_parallelism"] = figures.bars(
            where(covered[0], "measure", ["n_eff", "n_eff_naive", "paths"]), label="what", color="measure",
            x_title="valid chains", of="seeds",
        )  # fmt: skip
    whole, whole_runs = joined([(table, runs), joined(changed), curve, covered])
    return Report(whole, whole_runs, drawn, tuple(findings))


def _compression(arms: dict[str, list[Done]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """ECR@K of the arms that mix words."""
    parts = []
    for arm in (one for one in LATENT if one in arms and one != HIDDEN):
        for k in KS:
            parts.append(tabulate(arms[arm], {"compression": numbers("compression", str(k))}, {"K": k}))
    table, runs = joined(parts)
    return table.dropna(subset=["mean"]), runs.dropna(subset=["mean"])


def _parallelism(arms: dict[str, list[Done]]) -> tuple[pd.DataFrame, pd.DataFrame]:
    """N_eff in both readings, its floor, the number of chains, and the runner-up's weight."""
    parts = []
    names = ("n_eff", "n_eff_naive", "n_eff_share", "n_eff_ratio", "runner_up", "paths")
    for arm in (one for one in (TWO, FOUR) if one in arms):
        for how in ("positional", "matched"):
            parts.append(tabulate(arms[arm], {name: numbers(how, name) for name in names}, {"what": f"{arm}, {how}"}))
    table, runs = joined(parts)
    return table.dropna(subset=["mean"]), runs.dropna(subset=["mean"])


def _same(first: Sequence[Done], second: Sequence[Done]) -> tuple[list[Done], list[Done]]:
    """The cells of the seeds that both have."""
    seeds = {cell.cell.seed for cell in first} & {cell.cell.seed for cell in second}
    return [c for c in first if c.cell.seed in seeds], [c for c in second if c.cell.seed in seeds]


def _kept(arms: dict[str, list[Done]], seeds: int) -> list[str]:
    """The main question, by the rule above."""
    good, half = 0, 0
    for ours, theirs in zip(*_same(arms[TWO], arms[CHAINS]), strict=True):
        lost = float(correct()(theirs).mean() - correct()(ours).mean())
        shorter = float(length(ours).mean()) <= 0.5 * float((length(theirs) + 1).mean())
        good, half = good + (lost <= CLOSE and shorter), half + shorter
    found = difference(arms[TWO], arms[CHAINS])
    lengths = {arm: float(np.mean([length(cell).mean() for cell in arms[arm]])) for arm in (TWO, CHAINS)}
    said = "holds" if good >= 0.8 * seeds else "does not hold"
    return [
        f"Latent-SFT at ratio 2 keeps the accuracy of chains at half their length: {said} ({good} of {seeds} seeds; "
        f"{points(found)}; {lengths[TWO]:.1f} latents against {lengths[CHAINS]:.1f} tokens, at most half in {half})."
    ]


def _sides(arms: dict[str, list[Done]]) -> list[str]:
    """What each other arm differs by."""
    said = []
    for first, second in (
        (TWO, COCONUT), (TWO, FIXED), (FOUR, TWO), (TWO, HIDDEN), (TWO, INDUCTION), (TWO, SUPERVISION), (NOISE, TWO),
    ):  # fmt: skip
        if first not in arms or second not in arms:  # a grid of which a part was run
            continue
        ours, theirs = _same(arms[first], arms[second])
        found = difference(ours, theirs)
        word = "surely" if sure(found) else "not surely"
        said.append(f"{first} - {second}: {points(found)}, {word} another ({len(ours)} seed{'s' * (len(ours) > 1)}).")
    return said


def _changes(arms: dict[str, list[Done]]) -> list[str]:
    """Whether thoughts matter."""
    oracle = tabulate(arms[TWO], {"accuracy": correct("oracle")})[0].iloc[0]
    costs = []
    for name in (one.partition(":")[0] for one in CHANGES):
        costs.append(f"{name} {points(difference(arms[TWO], arms[TWO], correct(name), correct()))}")
    return [
        f"Behind the encoder's latents {100 * oracle['mean']:.1f} % are right [{100 * oracle['low']:.1f}, "
        f"{100 * oracle['high']:.1f}]; without any {percent_of(arms[TWO], 'dropped')}.",
        f"Its own thoughts changed, ratio 2: {'; '.join(costs)}.",
    ]


def percent_of(done: Sequence[Done], store: str) -> str:
    """Accuracy of a store in words."""
    found = tabulate(done, {"accuracy": correct(store)})[0].iloc[0]
    return f"{100 * found['mean']:.1f} %"


def _exits(arms: dict[str, list[Done]]) -> list[str]:
    said = []
    for arm in (one for one in (TWO, FOUR) if one in arms):
        free = float(np.mean([exited(cell).mean() for cell in arms[arm]]))
        taught = float(np.mean([numbers("teacher", "exit")(cell) for cell in arms[arm]]))
        said.append(f"{arm} {free:.1%} free, {taught:.1%} behind the encoder's latents")
    return [f"Chains that end by themselves: {'; '.join(said)}."]


def _left(arms: dict[str, list[Done]]) -> list[str]:
    """What the last steps of training leave: where thoughts fall short of labels that would do."""
    rows = pd.concat([read_metrics(cell.folder).tail(20) for cell in arms[TWO]])
    kl, answer = (float(np.mean(rows[name].tolist())) for name in ("loss_kl", "loss_likelihood"))
    return [
        f"At the end of training at ratio 2 a predicted latent is {kl:.2f} nats from its label, and a token of end "
        f"mark and answer behind the labels costs {answer:.2f} nats."
    ]


def _covers(covered: tuple[pd.DataFrame, pd.DataFrame]) -> list[str]:
    said = []
    table = covered[0]
    for arm in (TWO, FOUR):
        for how in ("positional", "matched"):
            rows = where(table, "what", [f"{arm}, {how}"])
            values = dict(zip(rows["measure"], rows["mean"], strict=True))
            if "n_eff" in values:
                said.append(
                    f"{arm}, {how}: N_eff {values['n_eff']:.2f} of {values['paths']:.2f} (at random "
                    f"{values['n_eff_naive']:.2f}, runner-up {values['runner_up']:.2f})"
                )
    return [f"Valid chains covered at once: {'; '.join(said)}."] if said else []
