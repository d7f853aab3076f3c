"""Planted faults: each must be noticed by the tests nearest to it. `make mutate` plants them one by one, in a copy.

A fault that no test notices is a test that is missing: write it. tests/test_mutate.py sees that the list fits the code.
"""

import argparse
import os
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Fault(NamedTuple):
    """What goes wrong, in which file, by which edit (`right` stands there once), and who should notice."""

    what: str
    file: str
    right: str
    wrong: str
    tests: str


FAULTS = (
    Fault(
        "a shuffle may leave a question its own thoughts", "workbench/evidence/changes.py",
        "taken = dict(zip(order, [*order[further:], *order[:further]], strict=True))",
        "taken = dict(zip(sorted(order), order, strict=True))", "tests/test_changes.py",
    ),
    Fault(
        "all questions get one noise", "workbench/evidence/changes.py",
        "manual_seed(place))\n        size", "manual_seed(0))\n        size", "tests/test_changes.py",
    ),
    Fault(
        "an averaged thought counts padding", "workbench/evidence/changes.py",
        "count[: t.vectors.shape[2]] += there.sum((0, 1))", "count += len(t.mask) * t.mask.shape[1]",
        "tests/test_changes.py",
    ),
    Fault(
        "all ranks draw one noise", "workbench/training/loop.py",
        "step.number * world + rank)", "step.number * world)", "tests/test_train_ranks.py",
    ),
    Fault(
        "every step draws the same noise", "workbench/training/loop.py",
        "torch.manual_seed(self.config.seed * 1_000_003 + step.number * world + rank)",
        "torch.manual_seed(self.config.seed * 1_000_003 + rank)", "tests/test_train_ranks.py",
    ),
    Fault(
        "optimisers do not forget", "workbench/training/loop.py",
        "optimizer.state.clear()", "pass", "tests/test_coconut_training.py",
    ),
    Fault(
        "the learning rate does not fall", "workbench/training/plan.py",
        "(steps - step) / max(1, steps - rise)", "1.0", "tests/test_train.py",
    ),
    Fault(
        "an epoch's order is that of the epoch before", "workbench/training/plan.py",
        'random.Random(f"{config.seed} {epoch}")', "random.Random(config.seed)", "tests/test_train.py",
    ),
    Fault(
        "ranks share an example", "workbench/training/plan.py",
        "batch[len(batch) * rank // world : len(batch) * (rank + 1) // world]",
        "batch[len(batch) * rank // world : len(batch) * (rank + 1) // world + 1]", "tests/test_train.py",
    ),
    Fault(
        "LoRA's alpha is lost", "workbench/methods/trained.py",
        "lora_alpha=alpha,", "lora_alpha=rank,", "tests/test_coconut_training.py",
    ),
    Fault(
        "packed rows see what comes after them", "workbench/backbone/packing.py",
        ".tril()", "", "tests/test_packing.py",
    ),
    Fault(
        "packed rows look at what is not there", "workbench/backbone/packing.py",
        "else (there | itself).tril()", "else torch.ones_like(itself).tril()", "tests/test_packing.py",
    ),
    Fault(
        "label losses have half their gradient", "workbench/backbone/label_losses.py",
        "wanted] -= 1", "wanted] -= 0.5", "tests/test_label_losses.py",
    ),
    Fault(
        "temperature is ignored in sampling", "workbench/backbone/decoding.py",
        "(logits / decoding.temperature).softmax(-1)", "logits.softmax(-1)", "tests/test_decoding.py",
    ),
    Fault(
        "of equally likely words the later one counts", "workbench/backbone/decoding.py",
        "torch.arange(size - 1, -1, -1,", "torch.arange(0, size,", "tests/test_decoding.py",
    ),
    Fault(
        "the nucleus drops the word that crosses top_p", "workbench/backbone/decoding.py",
        "((total - probability) < mass)", "(total < mass)", "tests/test_decoding.py",
    ),
    Fault(
        "the alignment loss is turned round", "workbench/methods/lta_thinker/losses.py",
        "(log_p.exp() * (log_p - log_r)).sum(-1).mean(-1)", "(log_r.exp() * (log_r - log_p)).sum(-1).mean(-1)",
        "tests/test_lta_losses.py",
    ),
    Fault(
        "steps that are not there compete in the focus loss", "workbench/methods/lta_thinker/losses.py",
        "to_question.masked_fill(~there, NOWHERE) / temperature", "to_question / temperature",
        "tests/test_lta_losses.py",
    ),
    Fault(
        "the block attends to padding", "workbench/methods/lta_thinker/generator.py",
        "key_padding_mask=~mask", "key_padding_mask=None", "tests/test_lta_generators.py tests/test_lta_thinker.py",
    ),
    Fault(
        "dropout hangs on the place in the batch", "workbench/methods/softcot_pp.py",
        "draw_seed(torch.initial_seed(), prompt.example.id, path)",
        "draw_seed(torch.initial_seed(), str(prompts.index(prompt)), path)", "tests/test_softcot_pp.py",
    ),
    Fault(
        "the contrast compares a path with itself", "workbench/methods/softcot_pp.py",
        "-scores.log_softmax(-1).diagonal(dim1=-2, dim2=-1)", "-scores.log_softmax(-2).mean(-1)",
        "tests/test_softcot_pp.py",
    ),
    Fault(
        "Coconut keeps the steps it replaces", "workbench/methods/coconut.py",
        "prompt.target[sum(len(step) for step in prompt.steps[:removed]) :]", "prompt.target",
        "tests/test_coconut.py",
    ),
    Fault(
        "spread counts the mean as variance", "workbench/analysis/diagnostics/cloud.py",
        "return samples(vectors).var(axis=0)", "return np.square(samples(vectors)).mean(axis=0)",
        "tests/test_diagnostics_cloud.py",
    ),
    Fault(
        "Gaussian KL leaves the means out", "workbench/analysis/diagnostics/divergences.py",
        "gaussian_kl_moments(np.zeros_like(shift), cov_p, shift, cov_q)",
        "gaussian_kl_moments(np.zeros_like(shift), cov_p, 0 * shift, cov_q)", "tests/test_diagnostics_divergences.py",
    ),
    Fault(
        "the verdict does not see merged slots", "workbench/analysis/diagnostics/verdict.py",
        "if cosine > lines.merged_cosine:", "if cosine > 2:", "tests/test_diagnostics.py",
    ),
    Fault(
        "pass@k is that of one draw", "workbench/analysis/scores.py",
        "np.maximum(1 - k / np.arange(n, 0, -1), 0)", "np.maximum(1 - 1 / np.arange(n, 0, -1), 0)",
        "tests/test_scores.py",
    ),
    Fault(
        "answers that could not be read vote", "workbench/analysis/scores.py",
        "        if prediction:\n            known", "        if True:\n            known", "tests/test_scores.py",
    ),
    Fault(
        "the interval of a mean takes draws for examples", "workbench/analysis/scores.py",
        "min(n * mean * (1 - mean) / variance, n * answers)", "n * answers", "tests/test_scores.py",
    ),
    Fault(
        "the draws of a question share their chance", "workbench/backbone/decoding.py",
        "(seed * 1_000_003 + draw) % 2**63", "seed % 2**63", "tests/test_decoding.py",
    ),
)  # fmt: skip


def noticed(fault: Fault, tree: Path) -> bool:
    """Whether the nearest tests fail when the fault is planted in `tree`, which is left as it was."""
    file = tree / fault.file
    text = file.read_text(encoding="utf-8")
    file.write_text(text.replace(fault.right, fault.wrong), encoding="utf-8")
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-p", "no:cacheprovider", *fault.tests.split()]
    environment = os.environ | {"PYTHONPATH": str(tree), "OMP_NUM_THREADS": "1"}
    try:
        code = subprocess.run(command, cwd=tree, env=environment, capture_output=True).returncode
    finally:
        file.write_text(text, encoding="utf-8")
    if code not in (0, 1):
        raise RuntimeError(f"{fault.tests} could not be run (exit {code}) with the fault: {fault.what}")
    return code == 1


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("words", nargs="*", help="only faults whose description holds one of these")
    words = parser.parse_args().words
    chosen = [fault for fault in FAULTS if not words or any(word in fault.what for word in words)]
    missed = 0
    with tempfile.TemporaryDirectory() as folder:
        tree = Path(folder) / "tree"
        names = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
        for name in names.decode().split("\0"):
            if name and (ROOT / name).is_file():
                (tree / name).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(ROOT / name, tree / name)
        for fault in chosen:
            started = time.time()
            found = noticed(fault, tree)
            missed += not found
            print(f"{'noticed' if found else 'MISSED':8} {time.time() - started:5.0f} s  {fault.what}", flush=True)
    print(f"{len(chosen) - missed} of {len(chosen)} faults noticed")
    return 1 if missed else 0


if __name__ == "__main__":
    sys.exit(main())
