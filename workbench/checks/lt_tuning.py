"""LT-Tuning's arithmetic against numbers of its public code: fusion, places of marks, loss with gradients, answers."""

from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from ..backbone import Decoding
from ..backbone.writing import write
from ..methods.base import Prompt
from ..methods.loops import LATENT, fill
from ..methods.lt_tuning import LTTuning, LTTuningConfig, candidates, expected_word, fused, inserted
from ..methods.lt_tuning.method import MARK
from ..methods.lt_tuning.places import label_probabilities
from ..tasks import Example
from .models import language_model
from .parts import Case, Parity, Parts

MODES = {1: "hidden", 2: "fusion"}


def lt_tuning(path: str | Path) -> Parity:
    """Every expected tensor of the file beside ours."""
    file = Parts(path, "lt-tuning", ("fusion", "positions", "loss", "decode"))
    mark = file.shared().whole("thinking_id")
    for case in file.cases("fusion"):
        _fusion(case, mark)
    for case in file.cases("positions"):
        _positions(case, mark)
    for case in file.cases("loss"):
        _loss(case, _method(file, case, mark))
    for case in file.cases("decode"):
        off, end = case.flag("forbid_thinking"), case.whole("end_id")
        _decode(case, _method(file, case, mark, end, test_thoughts=not off))
    return file.parity()


def _fusion(case: Case, mark: int) -> None:
    hidden = case.numbers("hidden", "R", "d").requires_grad_()
    logits = case.numbers("logits", "R", "V").requires_grad_()
    table = case.numbers("embedding", "V", "d").requires_grad_()
    if mark >= len(table):
        raise ValueError(f"thinking_id is {mark}, no row of {case.prefix}embedding, which has {len(table)}; mend it")
    top_p, temperature, alpha = (case.number(name) for name in ("top_p", "temperature", "alpha"))
    vectors = fused(hidden, expected_word(logits, table, mark, top_p, temperature, exclusive=True), alpha)
    given = {"hidden": hidden, "logits": logits, "embedding": table}
    case.compare("vectors", vectors)
    _gradients(case, (vectors * case.numbers("probe", "R", "d")).sum(), given)


def _gradients(case: Case, total: Tensor, given: Mapping[str, Tensor]) -> None:
    """Of all that is given; where nothing reaches, 0."""
    found = torch.autograd.grad(total, list(given.values()), allow_unused=True, materialize_grads=True)
    for name, gradient in zip(given, found, strict=True):
        case.compare(f"grad.{name}", gradient)


def _positions(case: Case, mark: int) -> None:
    logits = case.numbers("logits", "L", "V")
    ids = case.ids("ids", "L", high=logits.shape[1])
    first = case.whole("question_length", 1, len(ids) + 1)
    probability = label_probabilities(logits, ids, first)
    places = candidates(probability, case.number("threshold"), first)
    case.compare("probability", probability)
    case.compare("candidates", places)
    for name, count in (("once", 1), ("twice", 2)):
        case.compare(name, inserted(ids, places.tolist(), [count] * len(places), mark))
    once = inserted(ids, places.tolist(), [1] * len(places), mark)
    # marks stand behind the question, so it keeps its places; all that follows it is a label
    case.compare("labels_once", torch.cat([torch.full_like(once[:first], -100), once[first:]]))


def _method(file: Parts, case: Case, mark: int, end: int = 0, test_thoughts: bool = True) -> LTTuning:
    """The method with the file's weights, as a case wants it; answers end with the word `end`."""
    size = file.config.get("vocab_size")
    if not isinstance(size, int) or not mark < size:
        raise ValueError(
            f"{file.path}: thinking_id is {mark}, no word of the config's vocab_size {str(size)[:40]}; mend it"
        )
    if not end < size:
        raise ValueError(f"tensor '{case.prefix}end_id' holds {end}; give numbers from 0 to {size - 1}")
    model = language_model(file, file.weights("model."), {mark: MARK}, end)
    config = LTTuningConfig(
        mode=MODES[case.whole("mode", 1, 3)],  # pyright: ignore[reportArgumentType]
        layer=case.ids("layer", low=-1 - model.model.config.num_hidden_layers, high=0).item(),  # pyright: ignore
        alpha=case.number("alpha"),
        top_p=case.number("top_p"),
        temperature=case.number("temperature"),
        nucleus="exclusive",
        adapter=len(file.shared().numbers("adapter.down.bias", "hidden")) if case.flag("adapter") else 0,
        test_thoughts=test_thoughts,
    )
    method = LTTuning(model, config)
    if method.adapter is not None:
        shared = file.shared()
        with torch.no_grad():
            for name, parameter in method.adapter.named_parameters():
                parameter.copy_(shared.numbers(f"adapter.{name}", *parameter.shape))
    return method.eval()


def _loss(case: Case, method: LTTuning) -> None:
    vocabulary = len(method.backbone.table)
    ids = case.ids("input_ids", "B", "L", high=vocabulary)
    mask = case.ids("attention_mask", "B", "L", high=2).bool()
    labels = case.ids("labels", "B", "L", low=-100, high=vocabulary)
    positions = case.ids("position_ids", "B", "L")
    if not (positions == mask.cumsum(1) - 1)[mask].all():
        raise ValueError(f"tensor '{case.prefix}position_ids' does not count a row's real places; give 0, 1, ... there")
    rows = [row[real] for row, real in zip(ids, mask, strict=True)]
    prompts = []
    for row, own in zip(rows, [row[real] for row, real in zip(labels, mask, strict=True)], strict=True):
        asked, none = int((own == -100).sum()), row[:0]
        if not torch.equal(own[asked:], row[asked:]):
            raise ValueError(f"tensor '{case.prefix}labels' is not -100 on a question, then input_ids; give it so")
        prompts.append(Prompt(Example("", "", (), ""), row[:asked], none, row[asked:], none, (), none))
    loss = method.loss(prompts, len(method.stages()) - 1).total
    case.compare("loss", loss)
    _gradients(case, loss, {name.removeprefix("backbone.model."): p for name, p in method.named_parameters()})
    # every place's logits: a further place behind each row makes the last one predict as well
    longer = [torch.cat([row.masked_fill(row == method.mark, LATENT), row[:1]]) for row in rows]
    everywhere = [torch.cat([torch.full((1,), -100), row[1:].clamp(min=0), row[:1]]) for row in rows]
    with torch.no_grad():
        filled = fill(
            method.backbone, longer, method.maker(method.config.mode), labels=everywhere, layers=method.layers
        )
    inputs, logits = torch.zeros(*ids.shape, method.backbone.width), torch.zeros(*ids.shape, vocabulary)
    spread = torch.zeros(*filled.mask.shape, vocabulary)
    spread[:, filled.columns] = filled.logits  # pyright: ignore[reportArgumentType]
    for k, real in enumerate(mask):
        inputs[k, real] = filled.embeds[k][filled.mask[k]][:-1]
        logits[k, real] = spread[k][filled.mask[k]][:-1]
    case.compare("inputs", inputs)
    case.compare("logits", logits)


@torch.no_grad()
def _decode(case: Case, method: LTTuning) -> None:
    backbone = method.backbone
    prompt = case.ids("prompt_ids", "P", high=len(backbone.table))
    if not len(prompt):
        raise ValueError(f"tensor '{case.prefix}prompt_ids' is empty; give at least one id")
    count = case.whole("max_new_tokens", 1, 2**20)
    found = write(backbone, [backbone.embed(prompt)], method.writing([], Decoding(count)), count, layers=method.layers)
    tokens, inputs = found.words[0], list(backbone.embed(torch.tensor(found.words[0], dtype=torch.long)))
    (thoughts,) = found.each_thoughts()
    if thoughts is not None and thoughts.places is not None:
        for number, place in enumerate(thoughts.places[0, 0].tolist()):
            tokens.insert(place + number, method.mark)
            inputs.insert(place + number, thoughts.vectors[0, 0, number])
    case.compare("tokens", torch.tensor(tokens, dtype=torch.long))
    case.compare("inputs", torch.stack(inputs) if inputs else torch.zeros(0, backbone.width))
