"""The legs of training and their losses, and the latent loop."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch
from jaxtyping import Bool, Float, Int
from torch import Tensor, nn
from torch.nn import functional as F

from ...backbone import Completion, Decoding, likelihood
from ...backbone.label_losses import label_losses
from ...backbone.likelihood import UNLABELLED
from ...backbone.thoughts import Made, Mixture, State, Thoughts
from ...tasks import Example, Task
from ..base import Losses, Prompt, Stage, draw_seed
from ..loops import unroll
from ..mixtures import mixed
from .config import PRESETS, LatentSFTConfig
from .layout import Layout, decoder_layout, latent_layout
from .reading import Reading, chain_of
from .superposition import divergence, divergences, noised, superposed

COT, ENCODER, DECODER, UNION, LAST = "chain of thought", "encoder", "decoder", "encoder and decoder", "latents"
LEARNS = {COT: ("backbone.*",), ENCODER: ("encoder.*", "compress"), DECODER: ("backbone.*",), UNION: ("*",),
          LAST: ("backbone.*",)}  # fmt: skip
MARK, CAP = 1, 2  # how a chain ended: at its end mark, or at the longest there may be
SPELLED = ("<think>", "</think>")


class LatentSFT(Reading):
    """Latent-SFT: the next input is the mean of its likely words, whose mix was learned from compressed chains."""

    name = "latent-sft"
    Config = LatentSFTConfig
    presets = PRESETS

    # -- prompts and legs ----------------------------------------------------------------------------------------------

    @property
    def marks(self) -> tuple[str, str]:
        """What stands around the latents."""
        own = self.backbone.marks if self.config.marks == "own" else ("", "")
        return own if own[0] else SPELLED

    def render(self, example: Example, task: Task) -> Prompt:
        """The latents open the reply; behind the end mark comes the answer, without the worked steps."""
        message, (begin, end) = self.message(example, task, ""), self.marks
        before, _ = self.backbone.in_reply(message, task.opening, (begin, end))
        prompt = self.prompt(example, task, before, self.backbone.ids(end))
        return replace(prompt, target=prompt.target[sum(map(len, prompt.steps)) :])

    def stages(self) -> tuple[Stage, ...]:
        config = self.config
        shares = {COT: config.cot_share, ENCODER: config.encoder_share, DECODER: config.decoder_share,
                  UNION: config.union_share, LAST: config.latent_share}  # fmt: skip
        whole, rates = sum(shares.values()), {ENCODER: config.encoder_rate, UNION: config.encoder_rate}
        rates[LAST] = config.latent_rate
        return tuple(
            Stage(name, share / whole, "stage", rates.get(name, 1.0), LEARNS[name])
            for name, share in shares.items()
            if share
        )

    def begin_epoch(self, stage: int, epoch: int) -> None:
        self.epoch = epoch

    @torch.no_grad()
    def start(self, stage: int, prompts: Sequence[Prompt]) -> Sequence[Prompt]:
        """The encoder starts as the decoder is; legs of the decoder alone get their labels here, once and for all."""
        name = self.stages()[stage].name
        if name == ENCODER and self.encoder is not None:
            own = dict(self.encoder.named_parameters())
            for key, value in self.backbone.named_parameters():
                own[key].copy_(value)
        if name not in (DECODER, LAST):
            return prompts
        return [replace(p, given=labels) for p, labels in zip(prompts, self.labels(prompts), strict=True)]

    def weigh(self, prompts: Sequence[Prompt], stage: int = 0) -> int:
        """Tokens that are predicted; examples in the last leg, and where segments count alike."""
        name = self.stages()[stage].name
        if name == LAST or self.config.loss_mean == "segment":
            return len(prompts)
        if name == COT:
            return sum(len(chain_of(p)) + len(_closing(p)) for p in prompts)
        return sum(max(0, len(chain_of(p)) - self.config.ratio) + len(_closing(p)) for p in prompts)

    # -- losses --------------------------------------------------------------------------------------------------------

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        """The likelihood of chains and answers; in the last leg, of answers, and the divergence from the labels."""
        name = self.stages()[stage].name
        if name == COT:
            return self._written(prompts)
        if name in (DECODER, LAST):
            labels = [p.given for p in prompts]
            if not all(labels):
                labels = self.labels(prompts)
        else:
            labels = self.encoded(prompts)
        return self.imitation(prompts, labels) if name == LAST else self.supervision(prompts, self.vectors(labels))

    def _written(self, prompts: Sequence[Prompt]) -> Losses:
        """Negative log-likelihood of chain, end mark and answer as text."""
        rows = [torch.cat([p.before, chain_of(p), _closing(p)]) for p in prompts]
        labels = [torch.cat([torch.full_like(p.before, UNLABELLED), r[len(p.before) :]])
                  for p, r in zip(prompts, rows, strict=True)]  # fmt: skip
        losses = likelihood.token_losses(self.backbone, self.backbone.embed_each(rows), labels)
        if self.config.loss_mean == "segment":
            value = torch.stack([own.mean() for own in losses]).mean()
        else:
            value = torch.cat(losses).mean()
        return Losses(value, {"likelihood": value})

    def supervision(self, prompts: Sequence[Prompt], vectors: Sequence[Float[Tensor, "_ feature"]]) -> Losses:
        """Negative log-likelihood of each segment behind its latent, and of end mark and answer behind all latents.

        `segments` and `closing` are what the two add to it.
        """
        ratio, sink = self.config.ratio, self.config.supervision_sink == "first-token"
        layouts = [decoder_layout(p.before, chain_of(p), _closing(p), ratio, sink) for p in prompts]
        states = self.states(self.backbone, layouts, vectors, self.config.supervision_mask)
        places = [(own.labels != UNLABELLED).nonzero()[:, 0] for own in layouts]
        known = self._before(states, places)
        wanted = torch.cat([own.labels[at] for own, at in zip(layouts, places, strict=True)]).to(known.device)
        losses, (weights, text) = self._nll(known, wanted), self._counts(layouts, places)
        weighed = losses * weights.to(losses)
        segments = (weighed * text.to(weighed.device)).sum()
        return Losses(weighed.sum(), {"segments": segments, "closing": weighed.sum() - segments})

    def _counts(self, layouts: Sequence[Layout], places: Sequence[Tensor]) -> tuple[Tensor, Tensor]:
        """How much each label counts, all together 1, and which stand in segments."""
        kinds = [own.kind[at] == own.leaf for own, at in zip(layouts, places, strict=True)]
        text = torch.cat(kinds)
        if self.config.loss_mean == "token":
            return torch.full((len(text),), 1 / len(text), dtype=torch.float64), text
        found = []
        for own, at in zip(layouts, places, strict=True):
            number = torch.where(own.kind[at] == own.leaf, own.segment[at], int(own.segment.max()))
            sizes = number.bincount()[number]
            found.append(1 / (sizes * len(own.slots) * len(layouts)).double())
        return torch.cat(found), text

    def imitation(self, prompts: Sequence[Prompt], labels: Sequence[dict[str, Tensor]]) -> Losses:
        """The last leg: divergence of what is predicted at each latent from its label, mean over a chain's latents,
        then over examples; negative log-likelihood of end mark and answer. One noise for input and target.

        `exit`: of the end mark's first token. `target_entropy`: of the labels as they were noised, nats.
        """
        labels = [self._noised(p, own) for p, own in zip(prompts, labels, strict=True)]
        vectors = self.vectors(labels)
        layouts = [latent_layout(p.before, len(own), _closing(p)) for p, own in zip(prompts, vectors, strict=True)]
        states = self.states(self.backbone, layouts, vectors, masked=False)
        counts = [len(own) for own in vectors]
        slots = self._before(states, [own.slots for own in layouts])
        tokens, weights = (torch.cat([own[key] for own in labels]).to(slots.device) for key in ("tokens", "weights"))
        each = self._kl(slots, tokens, weights)
        kl = _mean_of_means(each, counts)
        closing = self._before(states, [(own.labels != UNLABELLED).nonzero()[:, 0] for own in layouts])
        wanted = torch.cat([_closing(p) for p in prompts]).to(slots.device)
        nll, sizes = self._nll(closing, wanted), [len(_closing(p)) for p in prompts]
        starts = torch.tensor([0, *sizes[:-1]]).cumsum(0).to(nll.device)
        exits = nll[starts]
        weighed = nll.index_add(0, starts, exits, alpha=self.config.exit_weight - 1)
        text = weighed.mean() if self.config.loss_mean == "token" else _mean_of_means(weighed, sizes)
        total = self.config.kl_weight * kl + self.config.likelihood_weight * text
        parts = {"kl": kl, "likelihood": text, "exit": exits.mean()}
        parts["target_entropy"] = _mean_of_means(torch.special.entr(weights.float()).sum(-1), counts)
        if self.config.thought == "hidden":
            at = [own.slots for own in layouts]
            before = torch.cat([own[place.to(own.device) - 1] for own, place in zip(states, at, strict=True)])
            parts["state"] = self._state_error(before, torch.cat([own["vectors"] for own in labels]), counts)
            total = total + self.config.kl_weight * parts["state"]
        return Losses(total, parts)

    def _state_error(self, slots: Tensor, wanted: Tensor, counts: list[int]) -> Tensor:
        """Squared error of states against those that are labels, over these' own mean square."""
        wanted = wanted.to(slots)
        return _mean_of_means((slots - wanted).square().mean(-1) / wanted.square().mean(), counts)

    def _noised(self, prompt: Prompt, labels: dict[str, Tensor]) -> dict[str, Tensor]:
        """Labels with fresh noise in training, from a generator of this example's visit."""
        config = self.config
        if not (self.training and config.noise_scale) or config.thought == "hidden":
            return labels
        chance = torch.Generator().manual_seed(draw_seed(config.seed, f"{prompt.example.id} {self.epoch}", 0))
        weights = labels["weights"]
        exponential = torch.empty(weights.shape, dtype=torch.float64).exponential_(generator=chance)
        gumbel = -exponential.log().to(weights.dtype)
        end = int(prompt.after[0])
        own = noised(weights.cpu(), labels["tokens"].cpu(), gumbel, config.noise_scale, config.noise_temperature, end)
        return labels | {"weights": own}

    def _before(self, states: Sequence[Float[Tensor, "_ feature"]], places: Sequence[Tensor]) -> Float[Tensor, "_ _"]:
        """States of the places before these, all rows' together; with `full_logits`, the plain way, their logits, taken
        out of those of all places."""
        if self.backbone.full_logits:
            head: Any = self.backbone.model.get_output_embeddings()
            states = head(torch.cat(list(states))).split([len(own) for own in states])
        return torch.cat([own[at.to(own.device) - 1] for own, at in zip(states, places, strict=True)])

    def _nll(self, known: Float[Tensor, "label _"], wanted: Int[Tensor, "label"]) -> Float[Tensor, "label"]:
        if self.backbone.full_logits:
            return F.cross_entropy(known.float(), wanted, reduction="none")
        return label_losses(known, wanted, self.backbone.model.get_output_embeddings())

    def _kl(self, known: Float[Tensor, "slot _"], tokens: Tensor, weights: Tensor) -> Float[Tensor, "slot"]:
        if self.backbone.full_logits:
            return divergence(known, tokens, weights)
        return divergences(known, tokens, weights, self.backbone.model.get_output_embeddings())

    # -- thinking and answering ----------------------------------------------------------------------------------------

    @property
    def _says_chains(self) -> bool:
        """Whether the weights are those of the leg that writes chains as text."""
        names = [one.name for one in self.stages()]
        return names[-1 if self.stage is None else self.stage] == COT

    @torch.no_grad()
    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        """Latents until the end mark's first token wins; none is legal. The same on every path.

        entropy: of the next word, nats; top_weight: its likeliest word's probability; exit, at the last latent: 1 at
        the end mark, 2 where there were `max_latents`.
        """
        most = 0 if self._says_chains else self.config.max_latents
        ends = torch.stack([p.after[0] for p in prompts]).to(self.backbone.device)
        thoughts = unroll(self.backbone, prompts, self._next(ends), most, lambda state, _: _ended(state, ends))
        if not most:
            return thoughts.over_paths(paths)
        counts = thoughts.mask.sum(2, keepdim=True)
        last = torch.arange(thoughts.mask.shape[2], device=counts.device) == counts - 1
        code = torch.where(counts < self.config.max_latents, MARK, CAP)
        signals = thoughts.signals | {"exit": (last * code).float().masked_fill(~thoughts.mask, torch.nan)}
        return replace(thoughts, signals=signals).over_paths(paths)

    def _next(self, ends: Int[Tensor, "prompt"]) -> Any:
        config, unusable = self.config, self.unusable()

        def step(state: State) -> Made:
            logits = state.logits
            if not config.end_in_mix:
                logits = logits.scatter(-1, ends[state.prompts][:, None], -torch.inf)
            tokens, weights = superposed(logits, config.components, unusable)
            p = state.logits.softmax(-1)
            signals = {"entropy": torch.special.entr(p).sum(-1), "top_weight": p.amax(-1)}
            if config.thought == "hidden":
                return Made(state.hidden, signals=signals)
            return Made(mixed(self.backbone, tokens, weights), None, signals, (tokens, weights))

        return step

    @torch.no_grad()
    def oracle(self, prompts: Sequence[Prompt]) -> Thoughts:
        """The encoder's latents, which has read the worked steps: what the method could think at best."""
        labels = self.labels(prompts)
        counts = torch.tensor([len(own["tokens"]) for own in labels])
        mask = torch.arange(int(counts.max())) < counts[:, None]

        def laid(rows: list[Tensor], blank: int) -> Tensor:
            out = nn.utils.rnn.pad_sequence([row.cpu() for row in rows], batch_first=True, padding_value=blank)
            return out[:, None].to(self.backbone.device)

        vectors = laid(self.vectors(labels), 0)
        mixture = Mixture(laid([own["tokens"] for own in labels], -1), laid([own["weights"] for own in labels], 0))
        there = mask[:, None].to(self.backbone.device)
        return Thoughts(vectors, there, mixture=None if self.config.thought == "hidden" else mixture)

    def answer(
        self, prompts: Sequence[Prompt], thoughts: Thoughts, decoding: Decoding, *, draws: int = 1, seed: int = 0
    ) -> list[list[list[Completion]]]:
        """Answers behind the end mark, which is forced whole; chains as text behind the begin mark."""
        if self._says_chains:
            prompts = [replace(p, after=p.after[:0]) for p in prompts]
        return super().answer(prompts, thoughts, decoding, draws=draws, seed=seed)

    def remark(self, thoughts: Sequence[Thoughts]) -> str:
        """How many latents there are, and how their chains ended."""
        if self._says_chains:
            return ""
        counts = torch.cat([t.mask.sum(2).flatten() for t in thoughts])
        exits = torch.cat([t.signals["exit"][t.mask] for t in thoughts if "exit" in t.signals] or [torch.zeros(0)])
        capped = int((exits == CAP).sum())
        return (
            f"{counts.float().mean():.1f} latents per question, {int((counts == 0).sum())} without any; "
            f"{capped} of {len(counts)} chains were cut at {self.config.max_latents}"
        )


def _closing(prompt: Prompt) -> Int[Tensor, "_"]:
    """End mark and answer."""
    return torch.cat([prompt.after, prompt.target])


def _ended(state: State, ends: Int[Tensor, "prompt"]) -> Bool[Tensor, "row"]:
    return state.logits.argmax(-1) == ends[state.prompts]


def _mean_of_means(values: Float[Tensor, "value"], counts: Sequence[int]) -> Float[Tensor, ""]:
    """Mean over rows of each row's mean; one without values counts 0."""
    sizes = torch.tensor(list(counts))
    scale = (1 / (sizes.clamp(min=1) * len(sizes)).double()).repeat_interleave(sizes)
    return (values * scale.to(values)).sum()
