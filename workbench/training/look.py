"""A look at the thoughts of a few questions while a method trains, so that collapse is seen while it happens."""

from collections.abc import Sequence

import torch
from torch.nn.utils.rnn import pad_sequence

from ..analysis.diagnostics import probe
from ..backbone.decoding import Decoding
from ..methods import LatentMethod, Prompt
from ..tasks import Task


@torch.no_grad()
def look(
    method: LatentMethod, task: Task, prompts: Sequence[Prompt], answers: int, seed: int
) -> tuple[dict[str, float], tuple[str, ...]] | None:
    """Spread and rank of the prompts' thoughts, and the accuracy of the first `answers` of them, answered greedily.

    Thoughts are those before the answers; where there are none, those within the answers that are asked for. What the
    method looks at besides stands with them, and its sentences. None where thoughts are not finite.
    """
    method.eval()
    asked, decoding = prompts[:answers], Decoding(max_new_tokens=task.answer_tokens)
    thoughts = method.think(prompts)
    own = [(v.float().cpu().clone(), m.cpu()) for v, m in zip(thoughts.vectors, thoughts.mask, strict=True)]
    written = []
    if asked:
        found = method.answer(asked, method.think(asked), decoding, seed=seed)
        written = [one for ((one,),) in found]  # one path, one answer
    vectors = [v[0][m[0]] for v, m in own]  # clones: they may be a view of weights
    if not any(map(len, vectors)):
        vectors = [c.thoughts.vectors[0, 0].float().cpu() for c in written if c.thoughts is not None]
    if not all(bool(one.isfinite().all()) for one in vectors):
        return None
    counts, seen = [len(one) for one in vectors], {}
    if max(counts, default=0):  # statistics of several questions are left out where there is one
        mask = torch.arange(max(counts)) < torch.tensor(counts)[:, None]
        seen = probe(pad_sequence(vectors, batch_first=True).numpy(), mask.numpy())
    if written:
        read = [(task.read(c.text, p.begun), p.example.answer) for c, p in zip(written, asked, strict=True)]
        seen["accuracy"] = sum(r is not None and task.same(r, gold) for r, gold in read) / len(read)
    more, said = method.watched(prompts)
    return seen | more, said
