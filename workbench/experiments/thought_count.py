"""How many thoughts are best, and if more of them hurt, why?

Beside accuracy and the shape of the thoughts: the share of the likelihood's gradient that reaches each slot. A slot
that gets none does not learn; effective slots are exp(entropy) of the shares.
"""

from collections.abc import Sequence

import numpy as np
import pandas as pd
import torch

from .. import figures
from ..methods import LatentMethod, Thoughts
from ..tasks import Task
from .grid import Cell, Done, Setting
from .report import Report, against, conditions, correct, difference, means, points, statistic, tabulate

COUNTS = (1, 2, 3, 4, 6, 8)
PROBED = 128  # dev questions the gradient shares are averaged over
MEASURES = {
    "accuracy": correct(),
    "relative spread": statistic("relative_spread"),
    "effective rank": statistic("effective_rank"),
    "effective slots": lambda done: effective_slots(done.measured()["gradient_share"]),
}


def cells(setting: Setting) -> list[Cell]:
    return [
        Cell("lta-thinker", seed, {"thoughts": count}, setting.training, {"thoughts": count}, measure=gradient_share)
        for count in COUNTS
        for seed in setting.seeds
    ]


def gradient_share(method: LatentMethod, task: Task) -> dict[str, list[float]]:
    """Norm of the gradient of an example's likelihood by each of its thoughts, as shares, mean over dev examples."""
    prompts = [method.render(example, task) for example in task.examples("dev", PROBED)]
    with torch.no_grad():
        vectors = method.think(prompts).vectors
    vectors = vectors.detach().requires_grad_()
    mask = torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device)
    loss = method.likelihood(prompts, Thoughts(vectors, mask)).sum()
    (gradient,) = torch.autograd.grad(loss, vectors)
    norms = gradient[:, 0].float().norm(dim=-1)
    return {"gradient_share": (norms / norms.sum(1, keepdim=True)).mean(0).tolist()}


def effective_slots(shares: Sequence[float]) -> float:
    """exp(entropy) of the shares: the number of slots if all got the same."""
    p = np.asarray(shares, dtype=float)
    return float(np.exp(-(p[p > 0] * np.log(p[p > 0])).sum()))


def report(setting: Setting, done: Sequence[Done]) -> Report:
    """All measures against the number of thoughts; the gradient's share per slot beside it."""
    table, runs = tabulate(done, MEASURES)
    rows = [
        {"thoughts": d.cell.condition["thoughts"], "seed": d.cell.seed, "slot": slot, "mean": share}
        for d in done
        for slot, share in enumerate(d.measured()["gradient_share"])
    ]
    right, slots = means(table, "accuracy", "thoughts"), means(table, "effective slots", "thoughts")
    best = max(right, key=lambda count: right[count])
    by = {condition["thoughts"]: cells for condition, cells in conditions(done)}
    most = difference(by[best], by[max(COUNTS)])
    findings = (
        f"Accuracy by number of thoughts: {', '.join(f'{count}: {100 * right[count]:.1f} %' for count in COUNTS)}; the "
        f"highest mean is at {best}: {points(most)} against {max(COUNTS)}.",
        "Slots the gradient really reaches (exp of the entropy of its shares): "
        f"{', '.join(f'{slots[count]:.1f} of {count}' for count in COUNTS)}.",
    )
    shares = pd.DataFrame(pd.DataFrame(rows).groupby(["thoughts", "slot"], as_index=False)["mean"].mean())
    shares[["low", "high"]] = np.nan
    drawn = {
        "thought_count": against(table, runs, x="thoughts"),
        "gradient_share": figures.response(
            shares,
            x="slot",
            color="thoughts",
            y_title="share of the gradient",
            n=PROBED,
            of="questions, mean over seeds",
        ),
    }
    return Report(table, runs, drawn, findings)
