"""A language model of a method's own, to be trained whole or through low-rank adapters (LoRA, Hu et al. 2021)."""

from copy import deepcopy
from typing import Any

import torch
from transformers.pytorch_utils import Conv1D

from ..backbone import MARKS, Backbone

ADDED = MARKS[-1]  # the marks that a tokenizer without any is given
LIKE = "<<"  # their rows start as that of the calculator's bracket


def trained_copy(backbone: Backbone, rank: int = 0, alpha: float = 32.0, marks: bool = True) -> Backbone:
    """A copy whose weights are trained, or with a `rank` adapters on all its linear layers, which count alpha / rank.

    The given one stays as it is. All weights are copied in float32, since small updates are lost in bfloat16; under
    adapters they stay as they are and both share them. With `marks` a tokenizer without marks for thoughts is given
    some.
    """
    given = backbone.model
    shared = {id(p): p for p in (*given.parameters(), *given.buffers())} if rank else {}
    own = Backbone(deepcopy(given, shared), deepcopy(backbone.tokenizer), backbone.name, backbone.revision)
    added = [] if own.marks[0] or not marks else _add_marks(own)
    own = Backbone(own.model, own.tokenizer, own.name, own.revision)  # which knows the new marks
    if rank:
        _add_adapters(own.model, rank, alpha, added)
    else:
        own.model.float().requires_grad_(True)
    return own


def _add_marks(backbone: Backbone) -> list[int]:
    """Two more tokens, as words; their rows in the table and in the output head start as the bracket's (their ids)."""
    model, tokenizer, pieces = backbone.model, backbone.tokenizer, backbone.ids(LIKE)
    tokenizer.add_tokens(list(ADDED))
    ids = tokenizer.convert_tokens_to_ids(list(ADDED))
    # a table may have more rows than there are tokens, and keeps them
    model.resize_token_embeddings(max(len(backbone.table), len(tokenizer)), mean_resizing=False)
    with torch.no_grad():
        for table in (model.get_input_embeddings().weight, model.get_output_embeddings().weight):
            table[ids] = table[pieces].mean(0)  # where the bracket is several tokens, their mean
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
