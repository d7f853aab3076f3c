"""A language model of a method's own, to be trained whole or through low-rank adapters (LoRA, Hu et al. 2021)."""

from collections.abc import Sequence
from copy import deepcopy
from typing import Any

import torch
from jaxtyping import Int
from torch import Tensor
from transformers.pytorch_utils import Conv1D

from ..backbone import MARKS, Backbone

ADDED = MARKS[-1]  # the marks that a tokenizer without any is given
LIKE = "<<"  # the calculator's bracket, as whose row they start


def trained_copy(
    backbone: Backbone, rank: int = 0, alpha: float = 32.0, marks: Sequence[str] | None = None, like: str = LIKE
) -> Backbone:
    """A copy whose weights are trained, or with a `rank` adapters on all its linear layers, which count alpha / rank.

    The given one stays as it is. All weights are copied in float32, since small updates are lost in bfloat16; under
    adapters they stay as they are and both share them, but for tables that get rows of the copy's own.

    marks: tokens to add, as words; those that the tokenizer has already are left alone. None: the marks around thoughts
    (`ADDED`) where it has none, () nothing. Their rows in the table and in the output head start as the mean of the
    rows of `like`, a word or the text of a control token, such as `backbone.tokenizer.eos_token`.
    """
    given, known = backbone.model, backbone.tokenizer.get_vocab()
    if marks is None:
        marks = () if backbone.marks[0] else ADDED
    added = [mark for mark in dict.fromkeys(marks) if mark not in known]
    shared = {id(p): p for p in (*given.parameters(), *given.buffers()) if not p.requires_grad} if rank else {}
    for module in (given.get_input_embeddings(), given.get_output_embeddings()) if added else ():
        for parameter in module.parameters():
            shared.pop(id(parameter), None)  # rows are written there, and a tied head follows its table
    model, tokenizer = deepcopy(given, shared), deepcopy(backbone.tokenizer)
    ids = _add_marks(model, tokenizer, added, backbone.ids(like)) if added else []
    own = Backbone(model, tokenizer, backbone.name, backbone.revision)
    if rank:
        _add_adapters(own.model, rank, alpha, ids)
    else:
        own.model.float().requires_grad_(True)
    return own


def _add_marks(model: Any, tokenizer: Any, added: Sequence[str], pieces: Int[Tensor, "_"]) -> list[int]:
    """More tokens, whose rows in the table and in the output head start as the mean of the `pieces`'; their ids."""
    if not len(pieces):
        raise ValueError("the text that new marks start as is empty; give a word, or the end of text's token")
    tokenizer.add_tokens(list(added))
    ids, table = tokenizer.convert_tokens_to_ids(list(added)), model.get_input_embeddings().weight
    # a table may have more rows than there are tokens, and keeps them
    model.resize_token_embeddings(max(len(table), len(tokenizer)), mean_resizing=False)
    head = model.get_output_embeddings()
    with torch.no_grad():
        for table in (model.get_input_embeddings().weight, head.weight, getattr(head, "bias", None)):
            if table is not None:
                table[ids] = table[pieces].mean(0)
    return ids


def _add_adapters(model: Any, rank: int, alpha: float, added: list[int]) -> None:
    """Adapters beside every linear layer but the output head; of the table only the added rows are trained."""
    try:
        from peft import LoraConfig, inject_adapter_in_model
    except ImportError as error:
        raise ValueError(
            "adapters (lora_rank) need the package peft; pip install 'latent-workbench[hub]', or give lora_rank 0"
        ) from error
    adapters = LoraConfig(
        r=rank,
        lora_alpha=alpha,  # pyright: ignore[reportArgumentType]  (any number will do)
        target_modules="all-linear",
        fan_in_fan_out=any(isinstance(module, Conv1D) for module in model.modules()),  # GPT-2's linear layers
        trainable_token_indices=added or None,
    )
    inject_adapter_in_model(adapters, model)
    for parameter in model.parameters():
        if parameter.requires_grad:
            parameter.data = parameter.data.float()
