"""What `workbench tasks` shows: what the tasks are, or of one what was read, a first example, what was left out."""

from importlib import import_module
from inspect import getdoc
from typing import get_args

from . import OWN, TASKS, Split, Task


def about(name: str) -> str:
    """What a task is, in a line."""
    if name in OWN:
        return (getdoc(OWN[name]) or "one of your own").splitlines()[0]
    module, function = TASKS[name]
    home = import_module(f".{module}", __package__)
    lines = [(getdoc(one) or "").splitlines()[:1] for one in (home, getattr(home, function))]
    alone = sum(file == module for file, _ in TASKS.values()) == 1
    return " ".join(line for own in lines[: 1 if alone else 2] for line in own)


def account(task: Task) -> str:
    """How a task was read: columns of the user's file, examples by split, the first one, what was left out."""
    found = {split: _count(task, split) for split in get_args(Split)}
    lines = [f"task {task.name}" + (f", {task.source}" if task.source else ""), *task.taken]
    lines.append("examples: " + "; ".join(f"{split} {said}" for split, (_, said) in found.items()))
    first = next((split for split, (count, _) in found.items() if count), None)
    if first is not None:
        example = task.load(first)[0]
        lines += ["", f"the first of {first}, {example.id}:", f"  told:     {task.instruction or 'nothing'}"]
        lines += [f"  question: {_indented(example.question)}"]
        lines += [f"  step:     {_indented(step)}" for step in example.steps]
        lines += [f"  answer:   {example.answer}", f"  labels:   {example.labels}"]
    lines += ["", "left out:" if task.refused else "left out: nothing", *(f"  {said}" for said in task.refused)]
    return "\n".join(lines)


def _count(task: Task, split: Split) -> tuple[int, str]:
    """How many examples a split has, and what is said of that."""
    try:
        count = len(task.load(split))
    except ValueError as error:
        return 0, f"none ({error})"
    return count, str(count)


def _indented(text: str) -> str:
    return text.replace("\n", "\n            ")
