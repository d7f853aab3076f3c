"""LTM as a method: what is asked becomes a text, thoughts are fitted to it, and answers are written beside them."""

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from jaxtyping import Float, Int
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence

from ...backbone import Backbone, Completion, Decoding
from ...backbone.generation import generate
from ...backbone.thoughts import Thoughts
from ...tasks import Example, Task
from ..base import LatentMethod, Losses, Prompt, draw_seed
from .bounds import active, costs, table
from .config import PRESETS, LTMConfig
from .decoder import NONE, Decoder, Shape
from .encoder import Encoder
from .inference import Draws, Gaussian, Noise, begun, floor, langevin, reaches
from .learning import Text, found_for, gradients_of, known, resting
from .model import Conditioned, ThoughtModel, byte_tokenizer, letter_tokenizer

LOOKED = 16  # texts of the probe set that thoughts are inferred for
LEAST = 1e-3  # nats per token that thoughts must be worth
EVIDENCE = "evidence"  # of a prompt: the ids that thoughts are inferred from
TOKENIZERS = {"bytes": byte_tokenizer, "letters": letter_tokenizer}


@dataclass(frozen=True)
class Fitted:
    """Thoughts of texts: as a Gaussian (Langevin: around its chain), and the ones to go on with."""

    posterior: Gaussian
    z: Float[Tensor, "example latent feature"]


class LTM(LatentMethod):
    """LTM: a small language model of its own beside thoughts that are fitted to each text as it is read."""

    name = "ltm"
    Config = LTMConfig
    presets = PRESETS
    needs = "tokenizer"

    def __init__(self, backbone: Backbone, config: LTMConfig):
        tokenizer = backbone.tokenizer if config.tokenizer == "backbone" else TOKENIZERS[config.tokenizer]()
        shape = Shape(
            len(tokenizer), config.width, config.layers, config.heads, config.window, config.latents, config.length,
            config.latent_pos,
        )  # fmt: skip
        decoder = Decoder(shape, config.init)
        super().__init__(ThoughtModel(decoder, tokenizer, backbone.name, backbone.revision), config)
        self.encoder = None
        if config.latents and config.inference in ("amortised", "semi-amortised"):
            self.encoder = Encoder(shape, config.encoder_layers, config.log_var)

    @property
    def decoder(self) -> Decoder:
        return self.backbone.model

    @property
    def plain(self) -> bool:
        """Whether training computes the plain way, without shortcuts (training.padded or training.full_logits)."""
        return self.backbone.padded or self.backbone.full_logits

    # -- texts -------------------------------------------------------------------------------------------------------

    def render(self, example: Example, task: Task) -> Prompt:
        """A question as the beginning of a text that its worked steps end; of a task of texts, the text itself."""
        backbone: Any = self.backbone
        first, none = torch.tensor([backbone.start]), torch.zeros(0, dtype=torch.long)
        if task.texts:
            ids = backbone.plain_ids(example.question)
            given = {EVIDENCE: torch.cat([first, ids])}
            return Prompt(example, first, none, ids, ids, (), backbone.plain_ids(example.answer), given=given)
        told = [self.worked(one, task) for one in self.shown(example, task)]
        message = task.message(example.question, "", backbone.family)
        asked = backbone.plain_ids("".join([*told, message, "\n", task.opening]))
        before = torch.cat([first, asked])
        return replace(self.prompt(example, task, before, none), given={EVIDENCE: before})

    def shown(self, example: Example, task: Task) -> list[Example]:
        """The demonstrations before a question: of the training split, never the question itself."""
        count = self.config.demonstrations
        return [one for one in task.load("train")[: count + 1] if one.id != example.id][:count] if count else []

    def worked(self, example: Example, task: Task) -> str:
        """A demonstration: question, steps, answer."""
        lines = [task.message(example.question, "", self.backbone.family), task.opening.rstrip("\n"), *example.steps]
        return "\n".join([*filter(None, lines), f"{task.mark} {example.answer}"]) + "\n\n"

    def text(self, rows: Sequence[Int[Tensor, "_"]]) -> Text:
        """Rows side by side, padded behind; each token is the target of the one before."""
        inputs = pad_sequence([row[: max(1, len(row) - 1)] for row in rows], batch_first=True)
        targets = [row[1:] if len(row) > 1 else row.new_full((1,), NONE) for row in rows]
        device = self.backbone.device
        return Text(inputs.to(device), pad_sequence(targets, batch_first=True, padding_value=NONE).to(device), None)

    def whole(self, prompts: Sequence[Prompt]) -> Text:
        """All of each prompt's text, its answer included."""
        return self.text([torch.cat([p.before, p.after, p.target]) for p in prompts])

    def noise(self, prompts: Sequence[Prompt], what: object) -> Noise:
        """Noise of each prompt's own, another for each `what`."""
        seeds = [draw_seed(self.config.seed, f"{what} {p.example.id}", 0) for p in prompts]
        return Noise(seeds, self.config.latents, self.config.width, self.backbone.table)

    # -- the fast loop -----------------------------------------------------------------------------------------------

    def fit(self, text: Text, noise: Draws, *, start: Gaussian | None = None, plain: bool = False) -> Fitted:
        """The thoughts of texts as they are inferred at test. `start`: where the fast loop begins."""
        config, decoder = self.config, self.decoder
        loop = config.test_loop()
        if self.encoder is not None:
            with torch.no_grad():
                first: Gaussian = self.encoder(text.tokens, text.targets != NONE)
            if config.inference == "amortised":
                return Fitted(first, first.at(noise()))
            loop = config.loop(config.refining, config.refining_rate)
        else:
            first = begun(noise, config.log_var) if start is None else start
        if config.inference == "langevin":
            z, around = self._chain(text, first.mu, noise, config.test_steps)
            return Fitted(around, z)
        found = found_for(decoder, text, first, noise, loop, plain=plain)
        q = found.posterior
        if config.inference == "map":
            return Fitted(q, q.mu)
        eps = found.eps if config.noise == "shared" and found.eps is not None else noise()
        return Fitted(q, q.at(eps))

    def _chain(self, text: Text, start: Tensor, noise: Draws, steps: int) -> tuple[Tensor, Gaussian]:
        """Langevin's samples: the last, and a Gaussian around them."""
        decoder, config = self.decoder, self.config
        with resting(decoder):
            with torch.no_grad():
                reading = text.read(decoder)

            def likelihood(z: Tensor) -> Tensor:
                return decoder.nll(decoder.states(reading, z), text.targets)

            return langevin(likelihood, start, noise, [config.langevin_size] * steps, largest=config.langevin_clip)

    # -- learning ----------------------------------------------------------------------------------------------------

    def weigh(self, prompts: Sequence[Prompt], stage: int = 0) -> int | float:
        """Tokens that are predicted: all but the first of each text."""
        return sum(len(p.before) + len(p.after) + len(p.target) - 1 for p in prompts)

    def loss(self, prompts: Sequence[Prompt], stage: int = 0) -> Losses:
        """Negative log-likelihood per token beside the thoughts that the fast loop finds for each text."""
        text, step = self.whole(prompts), self.training_step or 0
        if not self.config.latents:
            nll = self._nll(text, None).sum() / text.counts
            return Losses(nll, {"nll": nll})
        noise = self.noise(prompts, f"training {step}")
        if self.encoder is not None:
            return self._amortised(text, noise, step)
        if self.config.inference == "langevin":
            z, q = self._chain(text, begun(noise, self.config.log_var).mu, noise, self.config.steps)
            total = self._nll(text, z).sum() / text.counts
            return self._told(total, text, q, z)
        loop, start = self.config.training_loop(step), begun(noise, self.config.log_var)
        if self.config.slow_grad == "trajectory":
            weights = list(self.decoder.parameters())
            found = gradients_of(self.decoder, text, weights, start, noise, loop, plain=self.plain)
            count = text.counts * max(1, len(loop.rates))
            gradients = [None if g is None else g / count for g in found.gradients]
            total = known(found.nll.sum() / count, gradients, weights)
            return self._told(total, text, found.posterior, self._sample(found.posterior, found.eps, noise))
        found = found_for(self.decoder, text, start, noise, loop, plain=self.plain)
        z = self._sample(found.posterior, found.eps, noise)
        total = self._nll(text, z).sum() / text.counts
        return self._told(total, text, found.posterior, z, total.detach())

    def _sample(self, q: Gaussian, eps: Tensor | None, noise: Noise) -> Tensor:
        """The thoughts that weights learn from: those of a new noise, or of the last where there is one for all."""
        if self.config.inference == "map":
            return q.mu
        return q.at(eps if self.config.noise == "shared" and eps is not None else noise())

    def _amortised(self, text: Text, noise: Noise, step: int) -> Losses:
        """The bound at the encoder's Gaussian, and where it is refined the likelihood behind that."""
        assert self.encoder is not None
        q, weight = self.encoder(text.tokens, text.targets != NONE), self.config.kl_weight(step)
        if self.config.inference == "amortised":
            nll = self._nll(text, q.at(noise())).sum() / text.counts
            kl = q.kl().sum() / text.counts
            return Losses(nll + weight * kl, {"nll": nll, "kl": kl, "nelbo": nll + kl})
        loop = self.config.loop(self.config.refining, self.config.refining_rate, weight)
        better = found_for(self.decoder, text, Gaussian(q.mu.detach(), q.log_var.detach()), noise, loop).posterior
        nll = self._nll(text, better.at(noise())).sum() / text.counts
        with resting(self.decoder):
            own = (self._nll(text, q.at(noise())).sum() + weight * q.kl().sum()) / text.counts
        kl = better.kl().sum() / text.counts
        return Losses(nll + own, {"nll": nll, "kl": kl, "nelbo": nll + kl})

    def _nll(self, text: Text, z: Tensor | None) -> Float[Tensor, "example"]:
        """Of whole texts beside thoughts, summed over tokens."""
        decoder = self.decoder
        return decoder.nll(decoder.states(text.read(decoder), z), text.targets)

    def _told(self, total: Tensor, text: Text, q: Gaussian, z: Tensor, nll: Tensor | None = None) -> Losses:
        """The loss, with the parts of the bound per token at a sample that the fast loop has not seen."""
        with torch.no_grad():
            nll = self._nll(text, z).sum() / text.counts if nll is None else nll
            kl = q.kl().sum() / text.counts
        return Losses(total, {"nll": nll, "kl": kl, "nelbo": nll + kl})

    def notice(self) -> str:
        """What KL the fast loop of training leaves where there is nothing to learn."""
        config = self.config
        if not config.latents or config.inference != "vb":
            return ""
        loop = config.loop(config.steps, config.rate)
        left = floor(loop, config.log_var)
        dimensions = config.latents * config.width
        said = (
            f"KL floor of {config.steps} steps: {left.kl:.4f} nats per latent dimension, "
            f"{left.kl * dimensions / config.length:.3f} per token of a text of {config.length}"
        )
        if not reaches(loop, config.log_var):
            said += (
                f"; this is far off: rates sum to {sum(loop.rates):.2f} and log-variances have to go "
                f"{abs(config.log_var):g}: give other steps or another rate"
            )
        return said

    @torch.no_grad()
    def watched(self, prompts: Sequence[Prompt]) -> tuple[dict[str, float], tuple[str, ...]]:
        """Whether thoughts are read: their KL, dimensions that say something, the cost beside own and others'."""
        if not self.config.latents or len(prompts) < 2:
            return {}, ()
        text, noise = self.whole(prompts[:LOOKED]), self.noise(prompts[:LOOKED], "looking")
        q = self.fit(text, noise).posterior
        eps, count = noise(), text.counts
        own, others = (float(self._nll(text, one).sum()) / count for one in (q.at(eps), q.at(eps).roll(1, 0)))
        found = {"kl": float(q.kl().sum()) / count, "active": float(active(q)), "own": own, "shuffled": others}
        begun = (self.training_step or 0) > max(1, self.config.kl_hold + self.config.kl_ramp)
        if begun and (found["kl"] < LEAST or others - own < LEAST):
            said = (
                "thoughts are not read: their KL is nothing, or another text's do as well; hold and ramp the KL longer"
            )
            return found, (said,)
        return found, ()

    def bounds(self, prompts: Sequence[Prompt]) -> Any:
        """What the texts cost by every reading of `bounds.costs`."""
        return table(costs(self, prompts))

    # -- thinking and answering ------------------------------------------------------------------------------------

    @torch.no_grad()
    def think(self, prompts: Sequence[Prompt], *, paths: int = 1) -> Thoughts:
        """The posterior's mean of each latent vector, fitted to what is known of the text; paths have other noise."""
        if not self.config.latents:
            vectors = torch.zeros(len(prompts), paths, 0, self.backbone.width, device=self.backbone.device)
            return Thoughts(vectors, torch.zeros(vectors.shape[:-1], dtype=torch.bool, device=vectors.device))
        text, found = self.text([p.given[EVIDENCE] for p in prompts]), []
        for path in range(paths):
            noise = self.noise(prompts, f"thinking {path}")
            if self.config.from_prior:
                z = self.config.z_scale * noise()
                found.append(Fitted(Gaussian(z, torch.zeros_like(z)), z))
            else:
                found.append(self.fit(text, noise))
        means = [one.z if self.config.thought == "sample" else one.posterior.mu for one in found]
        vectors = torch.stack(means, 1)
        kl = torch.stack([one.posterior.kl() for one in found], 1)
        log_var = torch.stack([one.posterior.log_var.mean(-1) for one in found], 1)
        there = torch.ones(vectors.shape[:-1], dtype=torch.bool, device=vectors.device)
        return Thoughts(vectors, there, signals={"kl": kl, "log_var": log_var})

    def latents(self, thoughts: Thoughts) -> Float[Tensor, "row latent feature"] | None:
        """The thoughts of each example's paths as the decoder reads them: what is not there is zero."""
        if not self.config.latents:
            return None
        given = (thoughts.vectors * thoughts.mask[..., None]).flatten(0, 1).to(self.backbone.table)
        z = given.new_zeros(len(given), self.config.latents, self.config.width)
        count = min(self.config.latents, given.shape[1])
        z[:, :count] = given[:, :count]
        return z

    @torch.no_grad()
    def answer(
        self, prompts: Sequence[Prompt], thoughts: Thoughts, decoding: Decoding, *, draws: int = 1, seed: int = 0
    ) -> list[list[list[Completion]]]:
        """What is written behind each prompt beside its thoughts, which stay as they are unless they are replanned."""
        paths, z = thoughts.mask.shape[1], self.latents(thoughts)
        before = [torch.cat([p.before, p.after]) for p in prompts for _ in range(paths)]
        seeds = [draw_seed(seed, p.example.id, path) for p in prompts for path in range(paths)]
        if self.config.replan_every and z is not None:
            flat = self._replanned(before, z, decoding, draws, seeds)
        else:
            rows = self.backbone.embed_each(before)
            flat = generate(self.reader(z), rows, decoding, draws=draws, seeds=seeds)
        return [flat[k : k + paths] for k in range(0, len(flat), paths)]

    def reader(self, z: Float[Tensor, "row latent feature"] | None) -> Conditioned:
        """What writes beside these thoughts."""
        backbone: Any = self.backbone
        return Conditioned(backbone, z)

    def _replanned(
        self, before: Sequence[Tensor], z: Tensor, decoding: Decoding, draws: int, seeds: Sequence[int]
    ) -> list[list[Completion]]:
        """Answers in legs of `replan_every` words: behind each, thoughts are inferred from all that is written."""
        limit, leg = decoding.max_new_tokens, self.config.replan_every
        assert limit is not None
        rows = [row for row in before for _ in range(draws)]
        z = z.repeat_interleave(draws, 0)
        chances = [draw_seed(seed, f"draw {draw}", 0) for seed in seeds for draw in range(draws)]
        words: list[list[int]] = [[] for _ in rows]
        going, ended = list(range(len(rows))), [False] * len(rows)
        for first in range(0, limit, leg):
            own = replace(decoding, max_new_tokens=min(leg, limit - first))
            if first:
                written = [torch.cat([rows[k], torch.tensor(words[k], dtype=torch.long)]) for k in going]
                new = [draw_seed(chances[k], f"replan {first}", 0) for k in going]
                noise = Noise(new, self.config.latents, self.config.width, self.backbone.table)
                start = Gaussian(z[going], torch.full_like(z[going], self.config.log_var))
                z[going] = self.fit(self.text(written), noise, start=start).posterior.mu
            read = [torch.cat([rows[k], torch.tensor(words[k], dtype=torch.long)]) for k in going]
            own_seeds = [draw_seed(chances[k], f"words {first}", 0) for k in going]
            found = generate(self.reader(z[going]), self.backbone.embed_each(read), own, seeds=own_seeds)
            for k, (one,) in zip(going, found, strict=True):
                words[k] += one.tokens
                ended[k] = one.finished
            going = [k for k in going if not ended[k]]
            if not going:
                break
        texts = self.backbone.tokenizer.batch_decode(words, skip_special_tokens=True)
        parts = zip(texts, words, ended, strict=True)
        flat = [Completion(text, tuple(ids), end) for text, ids, end in parts]
        return [flat[k : k + draws] for k in range(0, len(flat), draws)]

    def likelihood(self, prompts: Sequence[Prompt], thoughts: Thoughts) -> Float[Tensor, "example"]:
        """Mean negative log-likelihood per target token beside the thoughts, averaged over paths."""
        paths, z = thoughts.mask.shape[1], self.latents(thoughts)
        repeated = [p for p in prompts for _ in range(paths)]
        nll = self._nll(self.behind(repeated), z)
        counts = torch.tensor([len(p.target) for p in repeated], device=nll.device)
        return (nll / counts).view(len(prompts), paths).mean(1)

    def behind(self, prompts: Sequence[Prompt], kept: Sequence[int] | None = None) -> Text:
        """The same texts with targets behind the prompt alone, or behind the first `kept` tokens of each."""
        text, targets = self.whole(prompts), []
        starts = [len(p.before) + len(p.after) for p in prompts] if kept is None else kept
        for own, start in zip(text.targets, starts, strict=True):
            places = torch.arange(len(own), device=own.device)
            targets.append(own.masked_fill(places < start - 1, NONE))
        return Text(text.tokens, torch.stack(targets), None)
