"""LTM's arithmetic against numbers of its public code: bound, inner loop, slow gradient, answers."""

from pathlib import Path

import torch
from torch import Tensor

from ..methods.ltm.decoder import NONE, Decoder, Shape
from ..methods.ltm.generation import advance, begun
from ..methods.ltm.inference import Gaussian, Loop
from ..methods.ltm.learning import Text, gradients_of
from .parts import Case, Parity, Parts

PARTS = ("elbo", "inner", "slow", "generate")


def ltm(path: str | Path) -> Parity:
    """Every expected tensor of the file beside ours."""
    file = Parts(path, "ltm", PARTS)
    for part, compare in zip(PARTS, (_elbo, _inner, _slow, _generate), strict=True):
        for case in file.cases(part):
            compare(case, _decoder(file, case))
    return file.parity()


def _decoder(file: Parts, case: Case) -> Decoder:
    """The file's decoder, its latents' keys turned or not as the case wants it."""
    shared = file.shared()
    weights = {
        name: shared.numbers(name, ...)
        for name in file.tensors
        if name in ("embedding", "norm") or name.startswith("layers.")
    }
    shared.numbers("embedding", "V", "H")
    shared.numbers("layers.0.gate", "F", "H")
    layers = len({name.split(".")[1] for name in weights if name.startswith("layers.")})
    heads, window = shared.whole("heads", 1, 4097), shared.whole("window", 1, 2**31)
    length = shared.whole("max_length", 1, 2**31)
    pos = "reference" if case.flag("latent_rope") else "none"
    vocabulary, width, inner = (shared.sizes[size] for size in "VHF")
    try:
        shape = Shape(vocabulary, width, layers, heads, window, _latents(case), length, pos, inner)
    except ValueError as error:
        raise ValueError(f"{file.path}: {error}") from error
    decoder = Decoder(shape)
    decoder.take({f"{name}.weight": value for name, value in weights.items()}, str(file.path))
    return decoder.eval()


def _latents(case: Case) -> int:
    """How many latent vectors the case has."""
    name = "mu" if case.has("mu") else "z"
    found = tuple(case.file.take(case.prefix + name).shape)
    if len(found) < 2 or not found[-2]:
        raise ValueError(f"tensor '{case.prefix}{name}' has shape {found}; give latent vectors there")
    return found[-2]


def _text(case: Case, decoder: Decoder) -> Text:
    tokens = case.ids("tokens", "B", "N", high=decoder.shape.vocabulary)
    targets = case.ids("targets", "B", "N", low=NONE, high=decoder.shape.vocabulary)
    return Text(tokens, targets, None)


def _vectors(case: Case, decoder: Decoder, name: str) -> Tensor:
    return case.numbers(name, "B", decoder.shape.latents, decoder.shape.width)


def _elbo(case: Case, decoder: Decoder) -> None:
    text = _text(case, decoder)
    q = Gaussian(_vectors(case, decoder, "mu").requires_grad_(), _vectors(case, decoder, "log_var").requires_grad_())
    z = q.at(_vectors(case, decoder, "eps"))
    reading = text.read(decoder)
    states = decoder.states(reading, z)
    nll, kl = decoder.nll(states, text.targets), q.kl().sum(1)
    case.compare("z", z)
    case.compare("logits", decoder.logits(states))
    case.compare("nll", nll)
    case.compare("kl", kl)
    case.compare("nelbo", nll + kl)
    found = torch.autograd.grad((nll + kl).sum(), [q.mu, q.log_var])
    case.compare_gradients(dict(zip(("mu", "log_var"), found, strict=True)))


def _inner(case: Case, decoder: Decoder) -> None:
    text = _text(case, decoder)
    start = Gaussian(_vectors(case, decoder, "mu"), _vectors(case, decoder, "log_var"))
    eps = case.numbers("eps", "E", "B", decoder.shape.latents, decoder.shape.width)
    rates = _rates(case)
    if len(eps) not in (1, len(rates)):
        raise ValueError(
            f"tensor '{case.prefix}eps' holds {len(eps)} noises for {len(rates)} steps; give one, or one for each"
        )
    drawn, seen = iter(eps), ([], [])
    decay = case.number("weight_decay")
    loop = Loop(rates, decay=decay, shared=len(eps) == 1, clamp=None)

    def watch(_: int, q: Gaussian) -> None:
        seen[0].append(q.mu.clone())
        seen[1].append(q.log_var.clone())

    weights = dict(decoder.named_parameters())
    found = gradients_of(decoder, text, list(weights.values()), start, lambda: next(drawn), loop, watch)
    case.compare("mu", torch.stack(seen[0]) if seen[0] else eps.new_zeros(0, *start.mu.shape))
    case.compare("log_var", torch.stack(seen[1]) if seen[1] else eps.new_zeros(0, *start.mu.shape))
    named = {name.removesuffix(".weight"): g for name, g in zip(weights, found.gradients, strict=True)}
    case.compare_gradients(named, "trajectory.")


def _rates(case: Case) -> list[float]:
    """The learning rates, of any real dtype."""
    given = case.file.take(case.prefix + "learning_rates")
    if given.ndim != 1 or not given.is_floating_point() or not given.isfinite().all():
        raise ValueError(f"tensor '{case.prefix}learning_rates' is no row of finite numbers; give one for each step")
    return given.double().tolist()


def _slow(case: Case, decoder: Decoder) -> None:
    text = _text(case, decoder)
    states = decoder.states(text.read(decoder), _vectors(case, decoder, "z"))
    loss = decoder.nll(states, text.targets).sum() / text.counts
    weights = dict(decoder.named_parameters())
    found = torch.autograd.grad(loss, list(weights.values()), allow_unused=True)
    case.compare("loss", loss)
    case.compare_gradients({n.removesuffix(".weight"): g for n, g in zip(weights, found, strict=True)})


@torch.no_grad()
def _generate(case: Case, decoder: Decoder) -> None:
    shape = decoder.shape
    tokens = case.ids("tokens", "P", high=shape.vocabulary)
    if not len(tokens):
        raise ValueError(f"tensor '{case.prefix}tokens' is empty; give a token to begin with")
    z = case.numbers("z", shape.latents, shape.width)
    cache, written = begun(decoder, z[None]), []
    ids = tokens
    for _ in range(case.whole("max_new_tokens", 0, 2**20)):
        embeds = decoder.embedding(ids)[None]
        states = advance(decoder, embeds, torch.ones(1, len(ids), dtype=torch.bool), cache)
        ids = decoder.logits(states[0, -1]).argmax()[None]
        written.append(ids)
    case.compare("tokens", torch.cat(written) if written else tokens[:0])
