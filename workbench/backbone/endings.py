"""Replies that end with a line: of an answer that was begun with the first one, else with the one that announces it.

"Tom has 5 + 3 = 8.\\nAnswer: 8" | "\\n\\nQuestion: ..."     what would follow is never written
"""

from collections.abc import Sequence

from .texts import Texts
from .thoughts import Made, State, Step


def ending(step: Step, texts: Texts, begins: Sequence[str | None]) -> Step:
    """`step`, with rows ending before the line break behind a line that starts with what `begins` says of their prompt.

    "": any line that holds something; None: the row ends as it does.
    """
    if all(one is None for one in begins):
        return step
    breaks = texts.breaks

    def ended(state: State, row: int) -> bool:
        begin = begins[int(state.prompts[row])]
        assert state.written is not None
        if begin is None:
            return False
        ids = [word for word in state.written[row].tolist() if word >= 0]
        lines = [line.strip() for line in texts.tokenizer.decode(ids, skip_special_tokens=True).splitlines()]
        return any(line.startswith(begin) and line[len(begin) :].strip() for line in lines)

    def made(state: State) -> Made:
        found = step(state)
        if found.words is None:
            return found
        at = breaks.to(found.words.device)[found.words.clamp(min=0)] & (found.words >= 0)
        if not bool(at.any()):
            return found
        ends = at.clone()
        for row in at.nonzero()[:, 0].tolist():
            ends[row] = ended(state, row)
        return Made(
            found.vector, found.token, found.signals, found.mixture, found.words,
            ends if found.ends is None else ends | found.ends,
        )  # fmt: skip

    return made
