"""SoftCoT and SoftCoT++ restated example by example and path by path: no batches, padding or caches."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F


def plain_thoughts(method, prompt, start: Tensor) -> Tensor:
    """[step, feature]: the assistant reads text and placeholders in one piece."""
    reader = method.reader
    text = reader.ids(reader.chat(prompt.example.question) + method.opening)
    embeddings = reader.model.get_input_embeddings()
    row = torch.cat([embeddings(text), *[start[None]] * method.config.thoughts])
    states = reader.model(inputs_embeds=row[None], output_hidden_states=True).hidden_states[-1][0, len(text) :]
    return states @ method.projection.weight.T + method.projection.bias


def plain_likelihood(method, prompt, thoughts: Tensor) -> Tensor:
    """Mean negative log-likelihood of the target, from one pass over the whole row."""
    embed = method.backbone.model.get_input_embeddings()
    row = torch.cat([embed(prompt.before), thoughts, embed(prompt.after), embed(prompt.target)])
    logits = method.backbone.model(inputs_embeds=row[None]).logits[0, -len(prompt.target) - 1 : -1]
    return -logits.log_softmax(-1)[torch.arange(len(prompt.target)), prompt.target].mean()


def plain_contrast(paths: list[Tensor], temperature: float | None, kept: list[Tensor] | None = None) -> Tensor:
    """Mean over paths of -log(e(k, k) / sum over j of e(k, j)), e of two paths' scaled cosine or bare dot product."""
    total = torch.zeros((), dtype=paths[0].dtype)
    for k, one in enumerate(paths):
        scores = []
        for j, other in enumerate(paths):
            other = other if kept is None else other * kept[j]
            if temperature is None:
                scores.append((one * other).sum())
            else:
                scores.append(F.cosine_similarity(one.flatten(), other.flatten(), dim=0) / temperature)
        total = total - torch.stack(scores).log_softmax(0)[k]
    return total / len(paths)


def same(found: Tensor, expected: Tensor, parameters: Sequence[Tensor]) -> None:
    """Two losses are equal, and so are their gradients."""
    torch.testing.assert_close(found, expected, atol=2e-5, rtol=1e-5)
    pairs = (torch.autograd.grad(loss, parameters) for loss in (found, expected))
    for ours, plain in zip(*pairs, strict=True):
        assert ours.abs().sum() > 0
        torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-3)
