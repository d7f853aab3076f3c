"""Training rows with marks, one stage after the other, and answers in which words and thoughts take turns."""

import random
from collections.abc import Sequence
from dataclasses import replace

import torch
from jaxtyping import Float, Int
from torch import Tensor

from ...backbone import Backbone, Decoding
from ...backbone.decoding import pick
from ...backbone.thoughts import Made, State, Step, Thoughts
from ...tasks import Example, Task
from ..base import LatentMethod, Losses, Prompt, Stage
from ..loops import LATENT, UNLABELLED, Filled, fill, unroll
from ..trained import trained_copy
from .config import MODES, PRESETS, LTTuningConfig
from .latents import Adapter, expected_word, fused
from .places import candidates, drawn, inserted

MARK = "<thinking>"
ROWS = 8  # read at a time when places are looked for
OPERATORS = frozenset("+-*/=<>")
PLAIN, STATE, LAST = "chain of thought", "states as thoughts", "fusion"


class LTTuning(LatentMethod):
    """LT-Tuning: the model writes a mark where it wants to think and reads its own state and expectation there."""

    name = "lt-tuning"
    Config = LTTuningConfig
    presets = PRESETS

    def __init__(self, backbone: Backbone, config: LTTuningConfig):
        like = config.like or backbone.tokenizer.eos_token
        super().__init__(trained_copy(backbone, config.lora_rank, config.lora_alpha, (MARK,), like), config)
        self.mark: int = self.backbone.tokenizer.convert_tokens_to_ids(MARK)
        width = self.backbone.width
        self.adapter = Adapter(width, config.adapter, config.adapter_norm) if config.adapter else None
        rows = self.backbone.embed(torch.arange(len(self.backbone.table))).detach().float()
        self.scale = rows.square().mean().sqrt()  # of the words' inputs
        self.layers = () if config.layer == -1 else (config.layer,)

    # -- training ----------------------------------------------------------------------------------------------------

    def stages(self) -> tuple[Stage, ...]:
        config, joint = self.config, self.config.schedule == "joint"
        shares = {PLAIN: config.plain_share, STATE: config.state_share}
        shares[LAST] = 1 - sum(shares.values())
        names = [name for name, share in shares.items() if share]
        return tuple(
            Stage(
                name, shares[name], "never" if joint else "stage", schedule="cosine", warmup=config.warmup,
                joined=joint and number > 0,
            )
            for number, name in enumerate(names)
        )  # fmt: skip

    def render(self, example: Example, task: Task) -> Prompt:
        """The reply follows the question at once; thoughts stand in it."""
        message = task.message(example.question, "", self.backbone.family)
        before = torch.cat(self.backbone.in_reply(message, task.opening, marks=False))
        return self.prompt(example, task, before, before[:0])

    def start(self, stage: int, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """The same prompts with marks in their targets, where the model as it stands is unsure of the label."""
        name = self.stages()[stage].name
        if name == PLAIN or self.config.placement == "none":
            return prompts
        config = self.config.of_last_stage() if name == LAST else self.config
        found = []
        for prompt, places in zip(prompts, self._places(prompts, config), strict=True):
            chance = random.Random(f"{config.seed} {prompt.example.id} {stage}")
            chosen, counts = [0], [config.fixed_thoughts]
            if config.placement != "fixed":
                chosen, counts = drawn(places, config, chance)
            found.append(replace(prompt, target=inserted(prompt.target, chosen, counts, self.mark)))
        return found

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        """Negative log-likelihood of all labels, marks among them."""
        filled = self.filled(prompts, self._mode(stage))
        if self.config.likelihood_mean == "token":
            likelihood = filled.token_losses().sum() / self.weigh(prompts)
        else:
            likelihood = filled.losses().mean()
        if self.adapter is not None:  # in a batch without thoughts it has no gradient, which other processes wait for
            likelihood = likelihood + 0 * sum(p.sum() for p in self.adapter.parameters())
        return Losses(likelihood, {"likelihood": likelihood})

    def weigh(self, prompts: Sequence[Prompt], stage: int = 0) -> int | float:
        """Labels, or examples."""
        if self.config.likelihood_mean == "example":
            return len(prompts)
        return sum(len(p.target) for p in prompts)

    def filled(self, prompts: Sequence[Prompt], mode: MODES) -> Filled:
        """The prompts' rows as they are read: a mark is a label, and its input is made."""
        rows, labels = [], []
        for p in prompts:
            rows.append(torch.cat([p.before, p.target.masked_fill(p.target == self.mark, LATENT)]))
            labels.append(torch.cat([torch.full_like(p.before, UNLABELLED), p.target]))
        return fill(self.backbone, rows, self.maker(mode), labels=labels, layers=self.layers)

    @torch.no_grad()
    def _places(self, prompts: Sequence[Prompt], config: LTTuningConfig) -> list[list[int]]:
        """The places of each target that may get marks."""
        if config.placement == "confidence":
            training = self.training
            self.eval()
            found = [place for k in range(0, len(prompts), ROWS) for place in self._unsure(prompts[k : k + ROWS])]
            self.train(training)
            return [candidates(p, config.threshold).tolist() for p in found]
        if config.placement == "arithmetic":
            return [self._arithmetic(p) for p in prompts]
        return [list(range(len(p.target))) for p in prompts]

    def _unsure(self, prompts: Sequence[Prompt]) -> list[Float[Tensor, "label"]]:
        """The model's probability of each label of the targets, from one plain pass."""
        filled = self.filled(prompts, "hidden")
        probability, there = filled.token_losses().neg().exp().cpu(), (filled.following != UNLABELLED).cpu()
        return [own[real] for own, real in zip(probability, there, strict=True)]

    def _arithmetic(self, prompt: Prompt) -> list[int]:
        """Places of the worked steps, not of the answer, whose text has a digit or an operator."""
        count = sum(len(step) for step in prompt.steps)
        texts = self.backbone.tokenizer.batch_decode(prompt.target[:count, None])
        return [k for k, text in enumerate(texts) if any(c.isdigit() or c in OPERATORS for c in text)]

    # -- thinking and answering ------------------------------------------------------------------------------------

    def _mode(self, stage: int | None) -> MODES:
        """What thoughts are in a stage; None: behind all of them."""
        states = stage is not None and self.stages()[stage].name == STATE
        return "hidden" if states and self.config.mode != "pause" else self.config.mode

    def maker(self, mode: MODES) -> Step:
        """The step that makes a thought of the position before it; signals say what it is made of."""
        config, table, layer = self.config, self.backbone.table, self.config.layer

        def make(state: State) -> Made:
            if mode == "pause":
                mark = self.backbone.embed(torch.tensor([self.mark])).expand(len(state.hidden), -1)
                return Made(mark, signals=self._signals(state, mark, mark, 0.0))
            h = state.hidden if layer == -1 else state.layers[layer]
            if config.state_scale == "embedding":
                h = h / h.float().square().mean(-1, keepdim=True).sqrt().to(h.dtype) * self.scale.to(h)
            if mode == "hidden":
                word, z, alpha = torch.zeros_like(h), h, 1.0
            else:
                exclusive = config.nucleus == "exclusive"
                word = expected_word(state.logits, table, self.mark, config.top_p, config.temperature, exclusive)
                alpha = 0.0 if mode == "soft" else config.alpha
                z = fused(h, word.to(h.dtype), alpha)
            signals = self._signals(state, h, word, alpha)
            return Made(z if self.adapter is None else self.adapter(z), signals=signals)

        return make

    @torch.no_grad()
    def _signals(
        self, state: State, h: Float[Tensor, "row feature"], word: Float[Tensor, "row feature"], alpha: float
    ) -> dict[str, Float[Tensor, "row"]]:
        """entropy: of the next word, in nats. word_norm, state_norm: lengths of the two parts of the sum, (1 - alpha)
        word and alpha h. run: how many thoughts in a row this is."""
        return {
            "entropy": torch.special.entr(state.logits.softmax(-1)).sum(-1),
            "word_norm": (1 - alpha) * word.float().norm(dim=-1),
            "state_norm": alpha * h.float().norm(dim=-1),
            "run": _thoughts_in_a_row(state).float() + 1,
        }

    @torch.no_grad()
    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        """What stands before the reply: nothing, unless thoughts are forced there."""
        make, length = self.maker(self._mode(self.stage)), self.config.forced_thoughts
        return unroll(self.backbone, prompts, make, length, layers=self.layers).over_paths(paths)

    def writing(self, prompts: Sequence[Prompt], decoding: Decoding) -> Step:
        """Words and thoughts by the model's own choice: the mark competes like any word."""
        config, make = self.config, self.maker(self._mode(self.stage))
        limit = config.max_consecutive_thoughts if config.test_thoughts else 0

        def step(state: State) -> Made:
            logits = state.logits
            if limit or not config.test_thoughts:
                closed = _thoughts_in_a_row(state) >= limit
                mark = torch.arange(logits.shape[-1], device=logits.device) == self.mark
                logits = logits.masked_fill(closed[:, None] & mark, -torch.inf)
            assert state.written is not None
            word = pick(logits, decoding, state.chance, state.written)
            if not bool((word == self.mark).any()):  # mostly; the mean word of a nucleus is not looked for then
                return Made(None, words=word)
            return replace(make(state), words=word.masked_fill(word == self.mark, -1))

        return step

    def remark(self, thoughts: Sequence[Thoughts]) -> str:
        """How many thoughts there are, and how often the limit of thoughts in a row was met."""
        limit = self.config.max_consecutive_thoughts
        counts = [int(t.mask.sum()) for t in thoughts]
        said = f"{sum(counts)} thoughts, {sum(count > 0 for count in counts)} of {len(counts)} questions have some"
        if limit:
            met = sum(int((t.signals["run"][t.mask] == limit).sum()) for t in thoughts if "run" in t.signals)
            said += f"; the limit of {limit} in a row was met {met} times"
        return said


def _thoughts_in_a_row(state: State) -> Int[Tensor, "row"]:
    """How many thoughts each row ends with."""
    if state.written is None or state.count is None:
        return state.number
    place = torch.arange(1, state.written.shape[1] + 1, device=state.rows.device)
    last = (place * (state.written >= 0)).amax(-1) if len(place) else torch.zeros_like(state.count)
    return state.count - last
