"""The words of this project, each for one thing: `wb.glossary()` in a notebook, and a table in README.md."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    import pandas as pd

GLOSSARY = {  # word: (what it means, how files and options call it)
    "example": ("a question with its worked steps and its gold answer", "`--training.examples`, `--examples`"),
    "task": ("questions of a kind, how an answer is read, and when it is right", "`--task`"),
    "backbone": ("the language model that answers, as it is", "`--backbone`"),
    "method": ("what makes thoughts of a question", "`--method`"),
    "thought": ("a vector that stands in the model's input where a word could", "`thought`"),
    "slot": ("the place of a thought among those of its question, counted from 0", "`step` of a store"),
    "empty slot": ("no thoughts: the backbone as it is writes the worked steps and answers", "method `cot`"),
    "path": ("one of several sets of thoughts for the same question", "`path`; `--paths`"),
    "draw": ("one of several answers to the same thoughts", "`draw`; `--draws`"),
    "worked step": ("a line of the written solution of a question, also called gold step", "`reasoning` of a store"),
    "positive step": ("the worked step that the focus loss draws a question towards", "`similarity_answer`"),
    "critical step": ("the worked step that the answer hangs on, where a task knows it", "`label_critical_step`"),
    "training step": ("one update of the trained weights", "`training_step`; `--step`, `step` in metrics.jsonl"),
    "run": ("a training and its folder: settings, curves, weights", "`--run`"),
    "snapshot": ("the weights after some of the training steps of a run", "`--training.snapshot_every`, `--step`"),
    "store": ("thoughts, answers, labels and where they come from, in one file", "`.nc`; `--out` of collect"),
    "read-out": ("the words a thought is nearest to, by the output head (lens) or by embedding", "`--readout`"),
    "counter-test": ("the same questions with thoughts swapped, dropped or noised", "`--change`, `workbench counter`"),
    "relative spread": ("how much of thoughts differs between questions: 0 = they ignore it", "`describe`"),
    "verdict": ("healthy, drifting, collapsed or undecided, by spread and counter-test", "`describe`"),
}


def glossary() -> "pd.DataFrame":
    """The words of this project: word, meaning, and how files and options call it (`in files`)."""
    import pandas as pd  # here: importing the package stays light

    table = pd.DataFrame.from_dict(GLOSSARY, orient="index", columns=["meaning", "in files"])
    return table.rename_axis("word")


def page() -> str:
    """The same as a table of Markdown, as README.md has it."""
    rows = [f"| {word} | {meaning} | {called} |" for word, (meaning, called) in GLOSSARY.items()]
    return "\n".join(["| word | what it is | in files and options |", "| --- | --- | --- |", *rows])
