"""Parity files for LTA-Thinker, their expectations computed without the package, from torch's stock attention.

`python tests/lta_parity.py` writes data/lta_parity.safetensors: the published example. Numbers known of the published
modules (float32, CPU) stand there as they are known; the rest is what `expectations` finds, checked against them.
"""

import math
from pathlib import Path

import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

FILE = Path(__file__).parent / "data" / "lta_parity.safetensors"
BLOCK = (
    "self_attn.in_proj_weight", "self_attn.in_proj_bias", "self_attn.out_proj.weight", "self_attn.out_proj.bias",
    "linear1.weight", "linear1.bias", "linear2.weight", "linear2.bias", "norm1.weight", "norm2.weight",
)  # fmt: skip
GRADIENTS = {
    "projection.weight": "projection.weight",
    "linear1.weight": "TransformerBlock.linear1.weight",
    "in_proj_weight": "TransformerBlock.self_attn.in_proj_weight",
}


def shapes(width: int, hidden: int) -> dict[str, tuple[int, ...]]:
    """Of the generator's weights, in the order of the published files."""
    sizes = (
        (3 * width, width), (3 * width,), (width, width), (width,), (hidden, width), (hidden,), (width, hidden),
        (width,), (width,), (width,),
    )  # fmt: skip
    found: dict[str, tuple[int, ...]] = {
        f"TransformerBlock.{name}": size for name, size in zip(BLOCK, sizes, strict=True)
    }
    return found | {"projection.weight": (width, width), "projection.bias": (width,)}


def expectations(case: dict[str, Tensor]) -> dict[str, Tensor]:
    """What the published arithmetic makes of a parity file's inputs, example by example, and the gradients."""
    width, eps = case["embedding"].shape[1], float(case.get("eps", torch.tensor(1e-6)))
    weights = {name: case[name].float().requires_grad_() for name in shapes(width, 1)}
    block = {name: weights[f"TransformerBlock.{name}"] for name in BLOCK}
    attention = nn.MultiheadAttention(width, 1, batch_first=True)  # with its default need_weights, as published
    own = {name.removeprefix("self_attn."): tensor for name, tensor in block.items() if "self_attn" in name}

    def norm(x: Tensor, gain: Tensor) -> Tensor:
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + eps) * gain

    x = F.embedding(case["ids"].long(), case["embedding"].float())
    padded = case["mask"].long() == 0
    mixed, _ = torch.func.functional_call(attention, own, (x, x, x), {"key_padding_mask": padded})
    y = norm(x + mixed, block["norm1.weight"])
    ahead = torch.relu(y @ block["linear1.weight"].T + block["linear1.bias"])
    z = norm(y + ahead @ block["linear2.weight"].T + block["linear2.bias"], block["norm2.weight"])
    u = z @ weights["projection.weight"].T + weights["projection.bias"]

    focus, align = [], []
    for example in range(len(u)):
        first, *steps = case["question_and_steps"][example].tolist()
        start, end = case["thought_index"][example, 2:].tolist()
        question = u[example, first]
        p = question.softmax(0)
        kl = [(p * (p.log() - thought.softmax(0).log())).sum() for thought in u[example, start:end]]
        align.append(sum(kl) / len(kl))
        answer = case["embedding"].float()[[i for i in case["answer_ids"][example].tolist() if i]].mean(0)

        def cosine(a: Tensor, b: Tensor) -> Tensor:
            return (a @ b) / (a.norm() * b.norm())

        if any(steps):
            near = [cosine(u[example, i], answer).item() for i in steps if i]
            towards = torch.stack([cosine(u[example, i], question) for i in steps if i]) / 0.1
            focus.append(towards.logsumexp(0) - towards[near.index(max(near))])
        else:
            focus.append(math.log(len(steps)) + 0 * u.sum())  # a constant, which no weight moves
    losses = {"focus": torch.stack(focus).mean(), "align": torch.stack(align).mean()}
    found = {"Z": z, "U": u} | {f"L_{name}": loss for name, loss in losses.items()}
    for name, loss in losses.items():
        gradients = torch.autograd.grad(loss, [weights[w] for w in GRADIENTS.values()], retain_graph=True)
        found |= {f"grad_{name}.{w}": gradient for w, gradient in zip(GRADIENTS, gradients, strict=True)}
    return {name: tensor.detach().clone() for name, tensor in found.items()}


def random_case(
    seed: int,
    *,
    width: int = 12,
    batch: int = 3,
    steps: int = 4,
    sharpness: float = 1.0,
    stepless: int = 0,
    eps: float | None = None,
) -> dict[str, Tensor]:
    """Inputs of a parity file: rows `[question | steps | thoughts | padding]` of unlike lengths.

    `sharpness` scales the matrices (and so how sharp attention is); the last `stepless` examples have no step.
    """
    g = torch.Generator().manual_seed(seed)
    vocabulary, hidden = 50, 2 * width + 1

    def integer(low: int, high: int) -> int:
        return int(torch.randint(low, high + 1, (), generator=g))

    case = {"embedding": torch.randn(vocabulary, width, generator=g)}
    for name, shape in shapes(width, hidden).items():
        scale = sharpness / width**0.5 if len(shape) == 2 else 0.1
        case[name] = scale * torch.randn(shape, generator=g) + (1.0 if "norm" in name else 0.0)
    rows = []
    for example in range(batch):
        count = 0 if example >= batch - stepless else steps if example == 0 else integer(1, steps)
        question, thoughts = integer(2, 6), integer(1, 3)
        marks = [question + 2 * (i + 1) for i in range(count)]
        start = question + 2 * count + 1 + integer(0, 1)
        rows.append(([question, *marks], start, start + thoughts, start + thoughts + 1))
    length = max(row[3] for row in rows) + 2
    case["ids"] = torch.randint(1, vocabulary, (batch, length), generator=g)
    case["mask"] = torch.stack([torch.arange(length) < row[3] for row in rows])
    case["thought_index"] = torch.tensor([[9999, -1, row[1], row[2]] for row in rows])
    case["question_and_steps"] = torch.tensor([row[0] + [0] * (steps + 1 - len(row[0])) for row in rows])
    case["answer_ids"] = torch.randint(1, vocabulary, (batch, 3), generator=g)
    case["answer_ids"][0, 1:] = 0
    return case if eps is None else case | {"eps": torch.tensor(eps)}


# ------------------------------------------------------------------------------------------------ the published example

Z = {
    (0, 0): (0.0514009, -0.3934589, -1.0996016, -1.0185776),
    (0, 1): (-1.2852010, -0.4958043, 0.1753790, 0.9068899),
    (0, 2): (1.2612967, 0.3880477, -0.3153816, -0.9641970),
    (0, 5): (1.2612967, 0.3880477, -0.3153816, -0.9641970),
    (0, 7): (1.2612967, 0.3880477, -0.3153816, -0.9641970),
    (0, 8): (0.9499334, 1.0441715, 0.4854226, -0.2963994),
    (1, 0): (-1.2827441, -0.5118297, 0.1912415, 0.8928174),
    (1, 2): (1.2648541, 0.3735118, -0.2994013, -0.9748781),
    (1, 4): (1.2648541, 0.3735118, -0.2994013, -0.9748781),
    (1, 5): (-0.4973692, -0.6979389, -1.0944724, -0.5502551),
    (1, 6): (-0.7331793, 0.6211492, 1.0073974, 0.6347587),
}
U = {
    (0, 0): (-0.1872530, -0.1579634, 0.6213876, -0.2546855),
    (0, 2): (-0.7595294, 0.5150761, -0.0746416, 0.3839035),
    (0, 6): (0.3389459, -0.5749910, 0.8810542, -0.3269852),
    (0, 8): (-0.7539880, 0.6895650, -0.4089977, 0.8394901),
    (1, 0): (0.4675907, -0.4899532, 0.5921603, 0.1323814),
    (1, 2): (-0.7596976, 0.5149497, -0.0742353, 0.3832642),
}
L_FOCUS, L_ALIGN = 8.2245064, 0.2184743
NORMS = {
    "grad_focus.projection.weight": 6.8623419, "grad_focus.linear1.weight": 0.1245412,
    "grad_align.projection.weight": 0.5722057, "grad_align.linear1.weight": 0.0351434,
}  # fmt: skip


def waves(shape: tuple[int, ...], scale: float, shift: float) -> Tensor:
    """scale sin(0.7 k + shift) over the elements, computed in float64."""
    k = torch.arange(math.prod(shape), dtype=torch.float64)
    return (scale * torch.sin(0.7 * k + shift)).float().reshape(shape)


def published_case() -> dict[str, Tensor]:
    """Inputs of the published example: width 4, hidden width 6, vocabulary 10."""
    case = {"embedding": waves((10, 4), 0.5, 0.1)}
    for c, (name, shape) in enumerate(shapes(4, 6).items(), 1):
        case[name] = waves(shape, 0.3, c) + (1.0 if "norm" in name else 0.0)
    return case | {
        "eps": torch.tensor(1e-6),
        "ids": torch.tensor([[1, 2, 5, 3, 4, 5, 6, 5, 7], [2, 4, 5, 1, 5, 8, 9, 0, 0]]),
        "mask": torch.tensor([[1] * 9, [1] * 7 + [0] * 2]),
        "thought_index": torch.tensor([[0, 2, 6, 8], [0, 2, 5, 7]]),
        "question_and_steps": torch.tensor([[2, 3, 4, 8], [2, 3, 5, 0]]),
        "answer_ids": torch.tensor([[3, 7], [4, 0]]),
    }


def published_file() -> dict[str, Tensor]:
    """Inputs and expectations of the published example; AssertionError when what is known of it is not found again."""
    case = published_case()
    found = expectations(case)
    for name, norm in NORMS.items():
        assert math.isclose(found[name].norm().item(), norm, rel_tol=1e-4), name
    known = {"L_focus": {(): L_FOCUS}, "L_align": {(): L_ALIGN}, "Z": Z, "U": U}
    for name, rows in known.items():
        for where, numbers in rows.items():
            torch.testing.assert_close(found[name][where], torch.tensor(numbers), atol=2e-6, rtol=0)
            found[name][where] = torch.tensor(numbers)
    return case | found


if __name__ == "__main__":
    save_file(published_file(), FILE)
    print(f"{FILE}: {FILE.stat().st_size} bytes")
