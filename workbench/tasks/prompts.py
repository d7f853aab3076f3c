"""Prompt packs: a task's message in words that the user brings, block by block, instead of our own instruction.

    verify: true          # refuse blocks that are not LTA-Thinker's published ones (default: say which are)
    tasks:
      gsm8k:              # for every family of backbones
        before: "..."     # before the question
        hint: "..."       # between the question and the thoughts
        after: "..."      # behind the thoughts
        generator: "..."  # before the question a thought generator reads; {N} stands for the number of thoughts
      gsm8k/qwen3: ...    # for one family, in place of the above: qwen3, qwen2.5, llama

    message = before + "Problem: " + question + "\\n\\n" + hint + thoughts + after       (StrategyQA: no "Problem: ")
    read by a generator = generator + question + "."                                  (StrategyQA: no full stop)

A block that is not given is empty. The published texts (arXiv 2509.12875) are not ours to ship; who has them puts them
into a pack, and their lengths and hashes say whether they are the very ones. The published code trains Qwen3 with one
message and tests it with another: both are official, and a pack holds one of them.
"""

import json
from collections.abc import Iterator
from dataclasses import asdict, dataclass, fields
from hashlib import sha256
from pathlib import Path
from typing import Any, Literal, NamedTuple

from ..files import placed, quoted, read_yaml, shown

FAMILIES = ("qwen3", "qwen2.5", "llama")


class Fingerprint(NamedTuple):
    """Length of a text and the first 16 hexadecimal digits of the SHA-256 of its UTF-8."""

    chars: int
    sha256: str


@dataclass(frozen=True)
class Blocks:
    """The texts of one message; see above."""

    before: str = ""
    hint: str = ""
    after: str = ""
    generator: str | None = None


@dataclass(frozen=True)
class Pack:
    """A prompt pack: where it was read, the hash of its texts, and for each key and block whether it is official."""

    path: str
    hash: str
    blocks: dict[str, Blocks]
    verdicts: dict[str, dict[str, Literal["official", "own"]]]

    @property
    def source(self) -> str:
        """What `load_pack` reads this very pack by, `path@hash`."""
        return f"{self.path}@{self.hash}"

    @property
    def name(self) -> str:
        """What tells stores of different packs apart, `file@hash`."""
        return f"{Path(self.path).stem}@{self.hash}"

    def about(self, task: str) -> "Pack":
        """This pack, if it has blocks of the task at all."""
        if not any(key.split("/")[0] == task for key in self.blocks):
            raise ValueError(
                f"the prompt pack {self.path} has no blocks of task {task!r}, only {', '.join(self.blocks)}; add some"
            )
        return self

    def of(self, task: str, family: str) -> Blocks:
        """The blocks of a task on a family of backbones, the family's own before those for all."""
        for key in (f"{task}/{family}", task):
            if key in self.blocks:
                return self.blocks[key]
        raise ValueError(
            f"the prompt pack {self.path} has no blocks of task {task!r} for a backbone of family {family!r}, only "
            f"{', '.join(self.blocks)}; add {task} or {task}/{family}"
        )

    def message(self, task: str, family: str, question: str, thoughts: str) -> str:
        """The message to the language model; `thoughts` is what stands in their place."""
        blocks = self.of(task, family)
        return f"{blocks.before}{_lead(task)}{question}\n\n{blocks.hint}{thoughts}{blocks.after}"

    def reading(self, task: str, family: str, question: str, count: int) -> str:
        """What a generator of `count` thoughts reads: the bare question where the pack has no generator block."""
        block = self.of(task, family).generator
        if block is None:
            return question
        return block.replace("{N}", str(count)) + question + ("." if _lead(task) else "")

    def report(self, task: str) -> str:
        """One line: which blocks of the task are the published ones."""
        found = [
            f"{key} {', '.join(f'{block} {verdict}' for block, verdict in verdicts.items())}"
            for key, verdicts in self.verdicts.items()
            if key.split("/")[0] == task
        ]
        return f"prompts {self.name}: {'; '.join(found)}"


def load_pack(source: str) -> Pack:
    """The pack at `source`, a path, or `path@hash` to be sure that its texts are still the same.

    ValueError, one sentence, for what is no pack, for another hash, and with `verify: true` for the first block that is
    not the published one.
    """
    path, pinned = source, ""
    if not Path(source).expanduser().is_file():
        path, _, pinned = source.rpartition("@")
    if not path or not Path(path).expanduser().is_file():
        raise ValueError(f"no prompt pack at {quoted(source)}; give a YAML file as in workbench/tasks/prompts.py")
    blocks, verify = _read(path)
    plain = {key: asdict(found) for key, found in blocks.items()}
    digest = sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()[:16]
    if pinned not in ("", digest):
        raise ValueError(
            f"the texts of the prompt pack {path} have changed (hash {digest}, asked for {shown(pinned)}); restore "
            f"them, or give {path} without a hash to use them as they are"
        )
    verdicts: dict[str, dict[str, Literal["official", "own"]]] = {}
    for key, found in blocks.items():
        complaints = dict(_checked(key, found, blocks))
        if verify and any(complaints.values()):
            complaint = next(filter(None, complaints.values()))
            raise ValueError(f"prompt pack {path}: {complaint}; mend the text, or set verify: false")
        verdicts[key] = {block: "own" if complaint else "official" for block, complaint in complaints.items()}
    return Pack(placed(path), digest, blocks, verdicts)


def fingerprint(text: str) -> Fingerprint:
    """Length and hash of a text."""
    return Fingerprint(len(text), sha256(text.encode()).hexdigest()[:16])


def _lead(task: str) -> str:
    return "" if task == "strategyqa" else "Problem: "


def _read(path: str) -> tuple[dict[str, Blocks], bool]:
    """The blocks of a file by their keys, and whether they must be the published ones."""
    content = read_yaml(Path(path).expanduser(), "a prompt pack as in workbench/tasks/prompts.py")
    verify = content.get("verify", False) if isinstance(content, dict) else None
    tasks = content.get("tasks") if isinstance(content, dict) else None
    if not isinstance(tasks, dict) or not tasks or not isinstance(verify, bool) or set(content) - {"tasks", "verify"}:
        raise ValueError(f"prompt pack {path} must hold 'tasks', a map from tasks to blocks, and may hold 'verify'")
    return {str(key): _blocks(path, str(key), found) for key, found in tasks.items()}, verify


def _blocks(path: str, key: str, found: Any) -> Blocks:
    _, slash, family = key.partition("/")
    if slash and family not in FAMILIES:
        raise ValueError(
            f"prompt pack {path}: {quoted(key)} names no family; use one of {', '.join(FAMILIES)}, or none"
        )
    names = [field.name for field in fields(Blocks)]
    if not isinstance(found, dict) or not found or not set(found) <= set(names):
        raise ValueError(f"prompt pack {path}: {quoted(key)} must be a map with some of {', '.join(names)}")
    for name, text in found.items():
        if not isinstance(text, str):
            raise ValueError(f"prompt pack {path}: {name!r} of {quoted(key)} must be text, it is {quoted(text)}")
    if "{N}" not in found.get("generator", "{N}"):
        raise ValueError(
            f"prompt pack {path}: 'generator' of {key!r} must hold {{N}} where the number of thoughts stands"
        )
    return Blocks(**found)


# ---------------------------------------------------------------------------------------------- the published prompts

EMPTY = fingerprint("")
BOXED = Fingerprint(71, "1c445e8b518193ce")  # one line: reason step by step, put the answer into a box
SHORT = Fingerprint(55, "59e413164a02483e")  # "here are prompts ...", with which Qwen3 is trained
MATH, AQUA = Fingerprint(493, "7d6c412a28d27770"), Fingerprint(861, "034287e19ab3868c")
DATES, DATES_QWEN3 = Fingerprint(872, "a21e7fac96fb8126"), Fingerprint(187, "523c34c710bdedd7")
LONG_HINT, HINT = Fingerprint(371, "3be50c678db69bad"), Fingerprint(304, "4cdcdd1070186f38")
YES_NO = Fingerprint(70, "66b9bf87074c0282")
YES_NO_HINT, YES_NO_AFTER = Fingerprint(48, "157bf3348c3222e7"), Fingerprint(47, "5c3514f7a354330d")
GENERATOR, GENERATOR_LLAMA = Fingerprint(870, "a90c736ee80aa626"), Fingerprint(710, "c312c0ecc9f8020e")
GENERATOR_DATES_LLAMA = Fingerprint(714, "efe1e3e48a7c0f2b")
GENERATOR_YES_NO = Fingerprint(596, "ec42470c1f88a282")


class Published(NamedTuple):
    """What is published for one task and family, per block: one text, or one for training and one for test."""

    before: tuple[Fingerprint, ...]
    hint: tuple[Fingerprint, ...]  # with the blank line before it
    after: tuple[Fingerprint, ...]
    generator: tuple[Fingerprint, ...]  # for two thoughts


def _published() -> dict[str, dict[str, Published]]:
    """Task -> family -> fingerprints."""
    none, generators = (EMPTY,), {"qwen3": GENERATOR, "qwen2.5": GENERATOR, "llama": GENERATOR_LLAMA}

    def task(before: Fingerprint, qwen3: Fingerprint, hint: Fingerprint, *hints: Fingerprint) -> dict[str, Published]:
        """`qwen3` and `hints` differ there only; its training message has nothing before the problem."""
        found = {family: Published((before,), (hint,), none, (text,)) for family, text in generators.items()}
        return found | {"qwen3": Published((qwen3, EMPTY), (hint, *hints), none, (GENERATOR,))}

    gsm8k, dates = task(MATH, MATH, LONG_HINT, SHORT), task(DATES, DATES_QWEN3, HINT)
    dates["llama"] = dates["llama"]._replace(generator=(GENERATOR_DATES_LLAMA,))
    yes_no = Published((YES_NO,), (YES_NO_HINT,), (YES_NO_AFTER,), (GENERATOR_YES_NO,))
    return {
        "gsm8k": gsm8k,
        "gsm8k-socratic": gsm8k,
        "math500": task(MATH, BOXED, LONG_HINT, SHORT),
        "aqua": task(AQUA, AQUA, HINT),
        "date_understanding": dates,
        "date_understanding-all": dates,
        "strategyqa": dict.fromkeys(FAMILIES, yes_no),
    }


PUBLISHED = _published()


def _checked(key: str, found: Blocks, blocks: dict[str, Blocks]) -> Iterator[tuple[str, str]]:
    """Each block's name with "", or with what tells it from the published one of a family that uses it."""
    task, _, family = key.partition("/")
    others = [name for name in FAMILIES if f"{task}/{name}" not in blocks]
    families = [family] if family else others or list(FAMILIES)
    texts = {"before": found.before, "hint": "\n\n" + found.hint, "after": found.after}
    if found.generator is not None:
        texts["generator"] = found.generator.replace("{N}", "2")
    for block, text in texts.items():
        given, complaint = fingerprint(text), ""
        for family in families if task in PUBLISHED else []:
            known = getattr(PUBLISHED[task][family], block)
            if given not in known:
                wanted = " or ".join(f"{one.chars} characters with sha256 {one.sha256}" for one in known)
                complaint = (
                    f"{block!r} of {key!r} is not the published text for {family}, which has {wanted}, but "
                    f"{given.chars} characters with sha256 {given.sha256}"
                )
                break
        if task not in PUBLISHED:
            complaint = f"{block!r} of {key!r} is not a published text: there is none for this task"
        yield block, complaint
