"""SoftCoT: a frozen assistant reads the question, a linear layer carries what it thinks over (arXiv 2502.12134).

    t_i = the assistant's state behind its final norm at u_i      [instruction, question, u_1 .. u_T], one token T times
    s_i = W t_i + b
    loss = mean over tokens of -log p(target | .., s_1 .. s_T, ..)

W and b are all that is trained; T thoughts come from one reading. Fewer thoughts at test than in training (published:
32 and 4) are the first ones, `collect --change truncated:4`, since a thought never depends on those behind it; only an
instruction that names the number goes on naming that of training.
"""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any, Literal

import torch
from jaxtyping import Float, Int
from torch import Tensor, nn

from ..backbone import Backbone, located, pad
from ..config import allowed, bounded
from ..tasks import Example, Task
from .assistant import load_assistant, read
from .base import LatentMethod, Losses, Prompt, Thoughts, draw_seed

# The published ones of the families that were published. Elsewhere such a token tells a model that nothing before it
# counts, and its state hardly hangs on the question: on SmolLM2 a hundredth as much as that of an ordinary word.
PLACEHOLDERS = {"llama": "<|end_of_text|>", "qwen3": "<|endoftext|>", "qwen2.5": "<|endoftext|>"}
ORDINARY = " the"  # a word that stands anywhere, and that no text ends with
INSTRUCTION = (
    "Another language model will solve the problem below. Give it {N} tokens that help: quantities and what happens to "
    "them, the most useful first, no sentences.\n\nProblem: "
)
OPENING = "{N} tokens that help with this problem: "
PUBLISHED: dict[str, Any] = {
    "projection_dtype": "bfloat16", "likelihood_mean": "token", "header": "learned", "last_token": "cut",
}  # fmt: skip


@dataclass(frozen=True)
class SoftCoTConfig:
    """The corrected method by default; `reference()` for the published one."""

    thoughts: int = 4
    """Thoughts per question (T)."""
    assistant: str = ""
    """The language model that reads: a shipped name, folder or hub id; empty for the backbone itself."""
    placeholder: str = ""
    """The token at the assistant's slots; empty for the published one (Qwen, Llama 3), else the one for unknown words
    where that is a token of its own, else an ordinary word (" the"), never one that ends texts."""
    instruction: str | None = None
    """What the assistant reads before the question, {N} for the number of thoughts; null for our words where it has a
    chat template, else nothing. A prompt pack has its own."""
    opening: str | None = None
    """How the assistant's reply starts, up to the placeholders; null as above."""
    noise: float = 0.0
    """Standard deviation of Gaussian noise on the thoughts of each path when answering, in units of their root mean
    square (SoftCoT-P); 0 leaves all paths the same."""
    projection_dtype: Literal["float32", "bfloat16"] = "float32"
    """Precision the projection is trained in; in bfloat16 (as published) most small updates are lost."""
    likelihood_mean: Literal["example", "token"] = "example"
    """Average the likelihood per example, or (as published) over all tokens of the micro-batch."""
    header: Literal["given", "learned"] = "given"
    """The header of the reply is given, or (as published) part of what is learned. Answers have it given."""
    last_token: Literal["learned", "cut"] = "learned"
    """Learn the token that ends an answer, or (as published for GSM8K) cut off the last one of the text: the same with
    Llama 3, with Qwen a line break behind it."""

    def __post_init__(self) -> None:
        allowed(self)
        bounded(self, thoughts=(1, 1024), noise=(0, 1e6))
        if self.assistant:
            object.__setattr__(self, "assistant", located(self.assistant))  # a run is used from other folders, too

    @classmethod
    def reference(cls, thoughts: int = 32) -> "SoftCoTConfig":
        """The published behaviour in training. (Published rates: AdamW 2e-5, linear to zero, no warm-up.)"""
        return cls(thoughts, **PUBLISHED)


class SoftCoT(LatentMethod):
    """SoftCoT: a frozen assistant model reads the question, a linear layer makes thoughts of its states."""

    name = "softcot"
    Config = SoftCoTConfig
    presets = {"reference": SoftCoTConfig.reference()}  # noqa: RUF012

    def __init__(self, backbone: Backbone, config: SoftCoTConfig):
        super().__init__(backbone, config)
        self.assistant = load_assistant(config.assistant, backbone)
        dtype = getattr(torch, config.projection_dtype)
        self.projection = nn.Linear(self.reader.width, backbone.width, dtype=dtype)
        self.placeholder = placeholder_id(self.reader, config.placeholder)
        own = (INSTRUCTION, OPENING) if self.reader.tokenizer.chat_template else ("", "")
        texts = (config.instruction, config.opening)
        self.instruction, self.opening = (
            (ours if text is None else text).replace("{N}", str(config.thoughts))
            for text, ours in zip(texts, own, strict=True)
        )

    @property
    def reader(self) -> Backbone:
        """The language model that reads the question."""
        return self.backbone if self.assistant is None else self.assistant

    def render(self, example: Example, task: Task) -> Prompt:
        """As ever, but the prompt's example asks what the assistant is asked."""
        prompt = super().render(example, task)
        asked = self.instruction + example.question
        if task.prompts is not None:
            asked = task.reading(example.question, self.backbone.family, self.config.thoughts)
        return replace(prompt, example=replace(example, question=asked))

    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        vectors = self._thoughts(prompts, self._starts(paths)).expand(-1, paths, -1, -1)
        if self.config.noise:
            vectors = vectors + self.config.noise * self._noise(prompts, vectors)
        return Thoughts(vectors, torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device))

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        likelihood = self._likelihood(prompts, self._thoughts(prompts, self._starts(1)))
        return Losses(likelihood, {"likelihood": likelihood})

    def _starts(self, paths: int) -> Float[Tensor, "path state"]:
        """What stands at the assistant's slots, the same at all slots of a path: here one path for all."""
        return self.reader.embed(torch.tensor([self.placeholder]))

    def _thoughts(
        self, prompts: Sequence[Prompt], starts: Float[Tensor, "path state"]
    ) -> Float[Tensor, "example path step feature"]:
        slots = starts[:, None].expand(-1, self.config.thoughts, -1)
        _, states = read(self.reader, *pad([self._row(p) for p in prompts], "left"), slots)
        return self.projection(states.to(self.projection.weight.dtype)).float()

    def _row(self, prompt: Prompt) -> Int[Tensor, "_"]:
        """What the assistant reads before its slots, in its own tokens."""
        return self.reader.ids(self.reader.chat(prompt.example.question) + self.reader.plain(self.opening))

    def _noise(
        self, prompts: Sequence[Prompt], vectors: Float[Tensor, "example path step feature"]
    ) -> Float[Tensor, "example path step feature"]:
        """Noise as large as the thoughts; that of an example's path is the same whatever else is asked."""
        shape = vectors.shape[2:]
        drawn = [
            torch.randn(shape, generator=torch.Generator().manual_seed(draw_seed(0, p.example.id, path)))
            for p in prompts
            for path in range(vectors.shape[1])
        ]
        return torch.stack(drawn).view(vectors.shape).to(vectors) * vectors.square().mean((2, 3), keepdim=True).sqrt()

    def _likelihood(
        self, prompts: Sequence[Prompt], vectors: Float[Tensor, "example path step feature"]
    ) -> Float[Tensor, ""]:
        """Mean negative log-likelihood over examples, paths and tokens."""
        learned = [self._learned(prompt) for prompt in prompts]
        mask = torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device)
        nll = self.likelihood(learned, Thoughts(vectors, mask))
        if self.config.likelihood_mean == "example":
            return nll.mean()
        counts = torch.tensor([len(p.target) for p in learned], device=nll.device)
        return (nll * counts).sum() / counts.sum()

    def _learned(self, prompt: Prompt) -> Prompt:
        """The prompt with the target that training learns."""
        after, target = prompt.after, prompt.target
        if self.config.header == "learned":
            ends = (after == self.backbone.turn_end).nonzero()[:1, 0].tolist()  # of the user's turn, if there are turns
            place = ends[0] + 1 if ends else len(after)
            after, target = after[:place], torch.cat([after[place:], target])
        if self.config.last_token == "cut" and not self.backbone.family.startswith("qwen"):
            target = target[:-1]
        return replace(prompt, after=after, target=target)


def placeholder_id(assistant: Backbone, token: str = "") -> int:
    """The id of a token of the assistant; without one, of what is usual for its family."""
    vocabulary, tokenizer = assistant.tokenizer.get_vocab(), assistant.tokenizer
    if token:
        if token not in vocabulary:
            raise ValueError(
                f"placeholder {token!r} is no token of {assistant.name!r}; give one, such as {tokenizer.eos_token!r}, "
                "or leave it empty for the usual one"
            )
        return vocabulary[token]
    published = PLACEHOLDERS.get(assistant.family)
    if published in vocabulary:
        return vocabulary[published]
    ends = {*PLACEHOLDERS.values(), tokenizer.bos_token, tokenizer.eos_token, tokenizer.pad_token}
    if tokenizer.unk_token in vocabulary and tokenizer.unk_token not in ends:
        return vocabulary[tokenizer.unk_token]
    return int(assistant.plain_ids(ORDINARY)[0])
