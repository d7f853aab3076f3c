"""Checks against numbers from elsewhere: LTA-Thinker's generator, losses and gradients on given weights.

The published arithmetic (arXiv 2509.12875 and its public code) in float32, with x = embedding[ids] of a batch:

    Z = TransformerBlock(x),  U = projection(Z)                     padded positions are read by nobody
    q = U at the question,  t_j = U at the thought rows,  s_i = U at the steps,  w = mean embedding of the answer
    L_align = mean_batch mean_j KL(softmax q || softmax t_j)
    L_focus = mean_batch CE(cos(q, s_i) / 0.1, i*),                 i* = argmax_i cos(s_i, w)

A parity file is one safetensors file (B examples, L positions, S steps at most, A answer ids at most):

    embedding [V, H]; ids, mask [B, L]; answer_ids [B, A], 0 = padding
    thought_index [B, 4]: columns 2 and 3 are the first and the past-last thought row; the others are not read
    question_and_steps [B, 1 + S]: the question's position, then the steps', 0 = no step
    TransformerBlock.* and projection.*: the weights, named as in the published files
    Z, U [B, L, H], L_focus, L_align: what is expected; compared at real positions only
    grad_focus.NAME, grad_align.NAME: gradients of the two losses by projection.weight, linear1.weight and
        in_proj_weight (self_attn.in_proj_weight and longer spellings will do); other weights' gradients are optional
    eps, optional: of the norms, else 1e-6

Any integer dtype does for indices, and any dtype for the mask (0 or 1) and the numbers.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ..methods.lta_thinker import LTAThinkerConfig, ThoughtBlock, alignment_loss, focus_loss, nearest_step
from .parts import Parity

TOLERANCE, EPS = 1e-5, 1e-6
OUTPUTS = ("Z", "U")
GRADIENTS = ("projection.weight", "linear1.weight", "self_attn.in_proj_weight")  # the others are optional
NEEDED = (
    "embedding", "ids", "mask", "thought_index", "question_and_steps", "answer_ids", "TransformerBlock.*",
    "projection.*", "Z", "U", "L_focus", "L_align", "grad_focus.*", "grad_align.*",
)  # fmt: skip
NO_STEPS = (
    "no example has a step: the published code stops there with an index error, so L_focus and grad_focus are compared "
    "only if the file has them"
)


def read_tensors(path: str | Path) -> dict[str, Tensor]:
    """The tensors of a safetensors file; ValueError when it is none."""
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    if not Path(path).is_file():
        raise ValueError(f"no file at {path}; give a .safetensors file")
    try:
        return load_file(path)
    except SafetensorError as error:
        raise ValueError(
            f"{path} is not a safetensors file ({error}); see workbench.check for what is in one"
        ) from error


def lta_parity_file(path: str | Path) -> Parity:
    """`lta_parity` of a safetensors file."""
    return lta_parity(read_tensors(path))


def lta_parity(tensors: Mapping[str, Tensor]) -> Parity:
    """Run the published arithmetic on a parity file's inputs and compare with its expectations.

    An example without steps counts in L_focus with the constant log S, as published. ValueError, naming the tensor,
    for one that is missing, has a wrong shape or dtype, or points outside of another.
    """
    file = _File(tensors)
    case = _case(file)
    block, projection = _weights(file)
    max_abs: dict[str, float | None] = {}

    def compare(name: str, ours: Tensor) -> None:
        real = case.mask if name in OUTPUTS else ...
        expected = file.take(name, *ours.shape)[real]
        if not expected.isfinite().all():
            raise ValueError(f"tensor {name!r} holds numbers that are not finite; give what is expected")
        max_abs[name] = (ours.detach()[real].double() - expected.double()).abs().max().item()

    states = block(case.inputs, case.mask)
    outputs = projection(states)
    compare("Z", states)
    compare("U", outputs)
    parameters = {f"projection.{name}": p for name, p in projection.named_parameters()} | dict(block.named_parameters())
    losses, focused = _losses(case, outputs), bool(case.there.any())
    if "focus" not in losses and "L_focus" in tensors:
        raise ValueError("tensor 'L_focus' is there, but 'question_and_steps' has no column for a step; leave it out")
    for kind, loss in losses.items():
        if kind == "align" or focused or "L_focus" in tensors:  # see NO_STEPS
            compare(f"L_{kind}", loss)
    for kind, loss in losses.items():
        gradients = torch.autograd.grad(loss, list(parameters.values()), retain_graph=True)
        for name, gradient in zip(parameters, gradients, strict=True):
            spelled = file.find(f"grad_{kind}.", name)
            if spelled or (name in GRADIENTS and (kind == "align" or focused)):
                compare(spelled or f"grad_{kind}.{name}", gradient)
    return Parity(max_abs, _notes(file, focused), TOLERANCE)


@dataclass(frozen=True)
class _Case:
    """The inputs of a parity file, checked. Steps that are not there point at position 0."""

    inputs: Float[Tensor, "example position feature"]
    mask: Bool[Tensor, "example position"]
    question: Int[Tensor, "example"]
    steps: Int[Tensor, "example reasoning"]
    there: Bool[Tensor, "example reasoning"]
    thoughts: tuple[slice, ...]
    answer: Float[Tensor, "example feature"]


class _File:
    """Named tensors, with what was read of them and the sizes seen so far, as in `sizes["H"]`."""

    def __init__(self, tensors: Mapping[str, Tensor]):
        self.tensors = tensors
        self.read: set[str] = set()
        self.sizes: dict[str, int] = {}

    def take(self, name: str, *shape: str | int) -> Tensor:
        """The tensor; a letter in `shape` stands for a size that is fixed where it is first seen."""
        if name not in self.tensors:
            raise ValueError(f"the file lacks tensor {name!r}; a parity file needs {', '.join(NEEDED)}")
        self.read.add(name)
        tensor = self.tensors[name]
        if tensor.is_complex():
            raise ValueError(f"tensor {name!r} is {tensor.dtype}; give real numbers")
        if not shape and tensor.numel() == 1:
            return tensor.reshape(())  # a number may come as one in a row
        found = tuple(tensor.shape)
        needed = tuple(self.sizes.get(size, size) if isinstance(size, str) else size for size in shape)
        if len(found) != len(needed) or any(isinstance(n, int) and n != f for f, n in zip(found, needed, strict=True)):
            sizes = ", ".join(map(str, needed)) + "," * (len(needed) == 1)
            raise ValueError(f"tensor {name!r} has shape {found}, needed is ({sizes}); give it in that shape")
        self.sizes |= {size: n for size, n in zip(needed, found, strict=True) if isinstance(size, str)}
        return tensor

    def numbers(self, name: str, *shape: str | int) -> Tensor:
        """A tensor of finite numbers as float32."""
        tensor = self.take(name, *shape).float()
        if not tensor.isfinite().all():
            raise ValueError(f"tensor {name!r} holds numbers that are not finite; give finite ones")
        return tensor

    def indices(self, name: str, *shape: str | int) -> Tensor:
        tensor = self.take(name, *shape)
        if tensor.dtype == torch.bool or tensor.is_floating_point() or tensor.is_complex():
            raise ValueError(f"tensor {name!r} is {tensor.dtype}; give indices of an integer dtype")
        return tensor.long()

    def find(self, prefix: str, name: str) -> str | None:
        """How the file spells `prefix` + a parameter's name: words before the name's last parts make no difference."""
        short = "." + name.removeprefix("self_attn.")
        found = [key for key in self.tensors if key.startswith(prefix) and ("." + key[len(prefix) :]).endswith(short)]
        if len(found) > 1:
            raise ValueError(f"the file has both {found[0]!r} and {found[1]!r}; leave one of them")
        return found[0] if found else None


def _case(file: _File) -> _Case:
    embedding = file.numbers("embedding", "V", "H")
    ids = file.indices("ids", "B", "L")
    mask = file.take("mask", "B", "L").double()
    if not ((mask == 0) | (mask == 1)).all():
        raise ValueError("tensor 'mask' holds values other than 0 and 1; give 1 at real positions and 0 at padding")
    mask = mask == 1
    if not mask.any(1).all():
        raise ValueError("tensor 'mask' has an example without a real position; leave that example out")
    positions = file.indices("question_and_steps", "B", "1+S")
    answers = file.indices("answer_ids", "B", "A")
    first, past = file.indices("thought_index", "B", 4)[:, 2:].unbind(1)
    vocabulary, length = file.sizes["V"], file.sizes["L"]
    _within("ids", ids[mask], vocabulary)
    _within("question_and_steps", positions, length)
    _within("answer_ids", answers, vocabulary)
    _within("thought_index", torch.stack([first, past - 1]), length)
    if not positions.shape[1]:
        raise ValueError("tensor 'question_and_steps' has no columns; the first must be the question's position")
    if (first >= past).any():
        raise ValueError("tensor 'thought_index' has a row without thoughts; column 3 must be larger than column 2")
    question, steps, there = positions[:, 0], positions[:, 1:], positions[:, 1:] != 0
    real = answers != 0
    if (there.any(1) & ~real.any(1)).any():
        raise ValueError("tensor 'answer_ids' has only padding where the example has steps; give the answer's ids")
    answer = (embedding[answers] * real[..., None]).sum(1) / real.sum(1, keepdim=True).clamp(min=1)
    thoughts = tuple(slice(*pair) for pair in zip(first.tolist(), past.tolist(), strict=True))
    inputs = embedding[ids.clamp(0, vocabulary - 1)]  # padding may be any number, even no id
    return _Case(inputs, mask, question, steps, there, thoughts, answer)


def _within(name: str, indices: Tensor, end: int) -> None:
    wrong = indices[(indices < 0) | (indices >= end)]
    if len(wrong):
        raise ValueError(
            f"tensor {name!r} points to {wrong[0].item()}, needed is 0 to {end - 1}; see what it counts in"
        )


def _weights(file: _File) -> tuple[ThoughtBlock, nn.Linear]:
    """The generator's two modules with the file's weights, in float32."""
    eps = file.numbers("eps").item() if "eps" in file.tensors else EPS
    width = file.sizes["H"]
    first = file.find("TransformerBlock.", "linear1.weight") or "TransformerBlock.linear1.weight"
    hidden = len(file.take(first, "F", width))
    with torch.device("meta"):  # shapes only: nothing is drawn
        block = ThoughtBlock(width, hidden, LTAThinkerConfig.reference().heads or 1, eps)
        projection = nn.Linear(width, width)
    for prefix, module in (("TransformerBlock.", block), ("projection.", projection)):
        spelled = {name: file.find(prefix, name) or prefix + name for name, _ in module.named_parameters()}
        state = {name: file.numbers(spelled[name], *p.shape) for name, p in module.named_parameters()}
        module.load_state_dict(state, assign=True)
    return block, projection


def _losses(case: _Case, outputs: Tensor) -> dict[str, Tensor]:
    """The two losses of the batch; no focus loss where there is not even room for a step."""
    rows = torch.arange(len(outputs))
    question, steps = outputs[rows, case.question], outputs[rows[:, None], case.steps]
    each = [  # one by one, since they may have different numbers of thoughts
        alignment_loss(question[k : k + 1], outputs[k : k + 1, where]) for k, where in enumerate(case.thoughts)
    ]
    alignment = torch.cat(each).mean()
    if not case.there.shape[1]:
        return {"align": alignment}
    to_question = F.cosine_similarity(steps, question[:, None], dim=-1)
    to_answer = F.cosine_similarity(steps, case.answer[:, None], dim=-1)
    temperature = LTAThinkerConfig.reference().temperature
    positive = nearest_step(to_answer, case.there)
    return {"focus": focus_loss(to_question, positive, case.there, temperature).mean(), "align": alignment}


def _notes(file: _File, focused: bool) -> tuple[str, ...]:
    """What the numbers alone do not say."""
    unread = sorted(set(file.tensors) - file.read)
    notes = {
        NO_STEPS: not focused,
        f"the file has no eps, so the norms have {EPS:g} (Llama models have 1e-5)": "eps" not in file.tensors,
        f"not read: {', '.join(unread)}": bool(unread),
    }
    return tuple(note for note, true in notes.items() if true)
