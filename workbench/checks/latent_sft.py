"""Latent-SFT's arithmetic against numbers of its public code: rows, masks, mixtures, noise, losses, latent loop."""

from pathlib import Path

import torch
from torch import Tensor, nn

from ..methods.base import Prompt
from ..methods.latent_sft import (
    LatentSFT,
    LatentSFTConfig,
    decoder_layout,
    divergence,
    encoder_layout,
    latent_layout,
    noised,
    superposed,
)
from ..methods.mixtures import mean_rows
from ..tasks import Example
from .models import language_model
from .parts import Case, Parity, Parts

PARTS = ("layout", "mixture", "noise", "kl", "stage1", "stage2", "think")


def latent_sft(path: str | Path) -> Parity:
    """Every expected tensor of the file beside ours."""
    file = Parts(path, "latent-sft", PARTS)
    for case in file.cases("layout"):
        _layout(case)
    for case in file.cases("mixture"):
        _mixture(case)
    for case in file.cases("noise"):
        weights, gumbel = case.numbers("weights", "N", "K"), case.numbers("gumbel", "N", "K")
        scale, temperature = case.number("scale"), _positive(case, "temperature")
        case.compare("weights", noised(weights, None, gumbel, scale, temperature))
    for case in file.cases("kl"):
        _kl(case)
    for case in file.cases("stage1"):
        _stage1(case, file)
    for case in file.cases("stage2"):
        _stage2(case, file)
    for case in file.cases("think"):
        _think(case, file)
    return file.parity()


def _positive(case: Case, name: str) -> float:
    value = case.number(name)
    if not value > 0:
        raise ValueError(f"tensor {case.prefix + name!r} is {value:g}; give a number above 0")
    return value


def _layout(case: Case) -> None:
    prompt, chain, end, answer = (case.ids(f"{name}_ids", name) for name in ("prompt", "cot", "end", "answer"))
    for name, ids in (("prompt", prompt), ("cot", chain), ("end", end)):
        if not len(ids):
            raise ValueError(f"tensor '{case.prefix}{name}_ids' is empty; give one id at least")
    ratio, closing = case.whole("ratio", 1), torch.cat([end, answer])
    encoder = encoder_layout(prompt, chain, end, ratio, "physical")
    decoder = decoder_layout(prompt, chain, closing, ratio)
    latent = latent_layout(prompt, len(decoder.slots), closing)
    for name, own in (("encoder", encoder), ("decoder", decoder)):
        case.compare(f"{name}_ids", own.ids)
        case.compare(f"{name}_mask", own.reads())
        case.compare(f"{name}_positions", own.positions)
    case.compare("decoder_labels", decoder.labels)
    case.compare("stage2_ids", latent.ids)
    case.compare("stage2_labels", latent.labels)


def _mixture(case: Case) -> None:
    hidden, table = case.numbers("hidden", "N", "d").requires_grad_(), case.numbers("embedding", "V", "d")
    tokens, weights = superposed(hidden @ table.T, case.whole("components", 1))
    vectors = mean_rows(table, tokens, weights)
    case.compare("tokens", tokens)
    case.compare("weights", weights)
    case.compare("vectors", vectors)
    (gradient,) = torch.autograd.grad((vectors * case.numbers("probe", "N", "d")).sum(), hidden)
    case.compare_gradients({"hidden": gradient})


def _kl(case: Case) -> None:
    logits = case.numbers("logits", "N", "V").requires_grad_()
    tokens = case.ids("tokens", "N", "K", high=logits.shape[1])
    kl = divergence(logits, tokens, _weights(case, "N", "K")).mean()
    case.compare("kl", kl)
    (gradient,) = torch.autograd.grad(kl, logits)
    case.compare_gradients({"logits": gradient})


def _weights(case: Case, *shape: str) -> Tensor:
    weights = case.numbers("weights", *shape)
    if bool((weights < 0).any()):
        raise ValueError(f"tensor '{case.prefix}weights' holds a number below 0; give weights")
    return weights


def _method(file: Parts, case: Case, end: Tensor, with_encoder: bool) -> LatentSFT:
    """The method with the file's weights, as published."""
    weights = file.weights("decoder.")
    backbone = language_model(file, weights, end=0)
    config = LatentSFTConfig(
        components=case.whole("components", 1) if case.has("components") else None,
        ratio=case.whole("ratio", 1) if case.has("ratio") else 1,
        readout="input-embedding",
        encoder_positions="physical",
        words="all",
        noise_scale=0.0,
        encoder=with_encoder,
        encoder_share=0.0,
        decoder_share=0.0,
        union_share=float(with_encoder),
        latent_share=1.0,
        kl_weight=case.number("kl_weight") if case.has("kl_weight") else 1.0,
        likelihood_weight=case.number("likelihood_weight") if case.has("likelihood_weight") else 1.0,
        max_latents=max(1, case.whole("max_latents")) if case.has("max_latents") else 1,
        lora_rank=0,
    )
    method = LatentSFT(backbone, config).eval()
    if method.encoder is not None:
        given, own = file.weights("encoder."), dict(method.encoder.model.base_model.named_parameters())
        if {n: tuple(v.shape) for n, v in given.items()} != {n: tuple(v.shape) for n, v in own.items()}:
            raise ValueError(f"the weights encoder.* in {file.path} do not fit its config; give a model without head")
        compress = file.shared().numbers("compress", method.backbone.width)
        with torch.no_grad():
            for name, value in own.items():
                value.copy_(given[name])
            method.compress.copy_(compress)
    return method


def _rows(case: Case, name: str, vocabulary: int, size: str) -> list[Tensor]:
    """Rows of ids that are padded with -1 behind."""
    rows = case.ids(name, "B", size, low=-1, high=vocabulary)
    return _unpadded(case, name, rows, rows >= 0)


def _unpadded(case: Case, name: str, rows: Tensor, there: Tensor) -> list[Tensor]:
    if bool((there[:, 1:] & ~there[:, :-1]).any()):
        raise ValueError(f"tensor {case.prefix + name!r} has ids behind its padding; pad at the end alone")
    return [row[own] for row, own in zip(rows, there, strict=True)]


def _end(case: Case, vocabulary: int) -> Tensor:
    end = case.ids("end_ids", "e", high=vocabulary)
    if not len(end):
        raise ValueError(f"tensor '{case.prefix}end_ids' is empty; give the ids of the end mark")
    return end


def _vocabulary(file: Parts) -> int:
    size = file.config.get("vocab_size")
    if not isinstance(size, int) or size < 1:
        raise ValueError(f"the config in {file.path} has no vocab_size; give one")
    return size


def _prompts(case: Case, vocabulary: int, chains: bool) -> list[Prompt]:
    end = _end(case, vocabulary)
    before, answer = _rows(case, "prompt_ids", vocabulary, "p"), _rows(case, "answer_ids", vocabulary, "a")
    steps = _rows(case, "cot_ids", vocabulary, "n") if chains else [end[:0]] * len(before)
    for name, rows in (("prompt_ids", before), *((("cot_ids", steps),) if chains else ())):
        if not all(map(len, rows)):
            raise ValueError(f"tensor {case.prefix + name!r} has an empty row; give one id at least")
    return [
        Prompt(Example(str(k), "", (), ""), b, end, a, b[:0], (s,), a)
        for k, (b, s, a) in enumerate(zip(before, steps, answer, strict=True))
    ]


def _named_gradients(loss: Tensor, method: LatentSFT) -> dict[str, Tensor | None]:
    """By names as in the file: decoder.*, encoder.* (without head), compress."""
    parameters = {name: value for name, value in method.named_parameters() if value.requires_grad}
    found = torch.autograd.grad(loss, list(parameters.values()), allow_unused=True)
    names = (
        name.replace("backbone.model.", "decoder.", 1) if name.startswith("backbone.")
        else name.replace("encoder.model.model.", "encoder.", 1)
        for name in parameters
    )  # fmt: skip
    return dict(zip(names, found, strict=True))


def _stage1(case: Case, file: Parts) -> None:
    vocabulary = _vocabulary(file)
    prompts = _prompts(case, vocabulary, chains=True)
    method = _method(file, case, prompts[0].after, with_encoder=True)
    vectors = method.vectors(method.encoded(prompts))
    loss = method.supervision(prompts, vectors).total
    case.compare("loss", loss)
    case.compare("vectors", nn.utils.rnn.pad_sequence([own.detach() for own in vectors], batch_first=True))
    case.compare_gradients(_named_gradients(loss, method))


def _stage2(case: Case, file: Parts) -> None:
    vocabulary = _vocabulary(file)
    prompts = _prompts(case, vocabulary, chains=False)
    method = _method(file, case, prompts[0].after, with_encoder=False)
    tokens = case.ids("tokens", "B", "N", "K", low=-1, high=vocabulary)
    weights = _weights(case, "B", "N", "K")
    there = (tokens >= 0).all(-1)
    labels = [
        {"tokens": t, "weights": w}
        for t, w in zip(
            _unpadded(case, "tokens", tokens, there), _unpadded(case, "weights", weights, there), strict=True
        )
    ]
    losses = method.imitation(prompts, labels)
    case.compare("loss", losses.total)
    case.compare("kl", losses.parts["kl"])
    case.compare("likelihood", losses.parts["likelihood"])
    gradients = _named_gradients(losses.total, method)
    case.compare_gradients({name.removeprefix("decoder."): value for name, value in gradients.items()})


@torch.no_grad()
def _think(case: Case, file: Parts) -> None:
    vocabulary = _vocabulary(file)
    prompt, end = case.ids("prompt_ids", "p", high=vocabulary), _end(case, vocabulary)
    if not len(prompt):
        raise ValueError(f"tensor '{case.prefix}prompt_ids' is empty; give one id at least")
    method, most = _method(file, case, end, with_encoder=False), case.whole("max_latents")
    none = prompt[:0]
    thoughts = method.think([Prompt(Example("0", "", (), ""), prompt, end, none, none, (), none)])
    count = min(int(thoughts.mask.sum()), most)
    case.compare("vectors", thoughts.vectors[0, 0, :count])
    mixture = thoughts.mixture
    likeliest = none if mixture is None else mixture.tokens[0, 0, :count, 0]
    case.compare("tokens", likeliest)
    case.compare("ended", torch.tensor(int(count < most)))
