"""How training was launched: one process or many, with whole weights or sharded ones (FSDP, Zhao et al. 2023).

accelerate reads it from the environment that `accelerate launch` and `torchrun` set. What it cannot do, or would do
silently otherwise than asked, is one sentence here.
"""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from accelerate import Accelerator
from accelerate.utils import DistributedDataParallelKwargs, DistributedType, broadcast_object_list
from torch import Tensor, nn
from torch.distributed.fsdp import FSDPModule
from torch.distributed.tensor import DTensor, distribute_tensor

from ..methods import LatentMethod
from ..runs import read_weights
from .plan import TrainConfig
from .stages import changes


def launched(method: LatentMethod, config: TrainConfig) -> Accelerator:
    """The processes that were launched, or one sentence about why they cannot train this method."""
    if _asked("ACCELERATE_USE_DEEPSPEED"):
        raise ValueError(
            "DeepSpeed takes one optimiser and steps it by itself: unfit for Muon beside AdamW and for pieces of a "
            "batch that count by their size; shard with FSDP instead (`accelerate launch --use_fsdp --fsdp_version 2`)"
        )
    precision = os.environ.get("ACCELERATE_MIXED_PRECISION", "no")
    if precision not in ("no", config.mixed_precision):
        raise ValueError(
            f"the launcher asks for mixed precision {precision} and the training settings for "
            f"{config.mixed_precision}; give --training.mixed_precision bf16 or launch with --mixed_precision no"
        )
    started = int(os.environ.get("WORLD_SIZE", "1"))  # torchrun's
    # Without GPUs accelerate has to be told: it would take each of several processes for the only one. Autocast is the
    # training loop's: under FSDP accelerate would cast the trainable weights instead.
    # Where some parameters rest in a stage, processes must not wait for the gradients of those.
    more: dict[str, Any] = {}
    if started > 1 and not _asked("ACCELERATE_USE_FSDP") and changes(method):
        more = {"kwargs_handlers": [DistributedDataParallelKwargs(find_unused_parameters=True)]}
    accelerator = Accelerator(cpu=started > 1 and not torch.cuda.is_available(), mixed_precision="no", **more)
    assert accelerator.num_processes == started, f"{started} processes that take themselves for the only one"
    if config.processes not in (None, accelerator.num_processes):
        raise ValueError(
            f"{config.processes} processes are wanted (training.processes) and {accelerator.num_processes} running; "
            f"use `torchrun --nproc_per_node {config.processes} -m workbench train ...`, or `accelerate launch` on GPUs"
        )
    if _asked("ACCELERATE_USE_FSDP"):
        check_sharding(accelerator, method, config)
        method._no_split_modules = method.backbone.model._no_split_modules  # accelerate shards these one by one
    return accelerator


def check_sharding(accelerator: Accelerator, method: LatentMethod, config: TrainConfig) -> None:
    """Raise one sentence unless this method can be sharded as asked."""
    if config.prefix_cache == "full" or config.compile:
        what = "prefix_cache=full" if config.prefix_cache == "full" else "compile"
        raise ValueError(
            f"{what} in the training settings does not go with FSDP; train without it, or without use_fsdp"
        )
    if accelerator.distributed_type != DistributedType.FSDP:
        raise ValueError(
            "accelerate shards (FSDP) on several GPUs only and would train unsharded here; launch without use_fsdp"
        )
    plugin = accelerator.state.fsdp_plugin
    assert plugin is not None
    if plugin.fsdp_version != 2:
        raise ValueError("FSDP 1 mixes trained and frozen weights badly; set fsdp_version: 2 in accelerate's config")
    if plugin.activation_checkpointing:
        raise ValueError(
            "FSDP's activation checkpointing would append to the cache of the prompt twice; switch it off in "
            "accelerate's config and give --training.gradient_checkpointing true"
        )
    dtypes = sorted({str(p.dtype).removeprefix("torch.") for p in method.parameters() if p.requires_grad})
    if len(dtypes) > 1:
        raise ValueError(
            f"method {method.name!r} trains weights in {' and '.join(dtypes)}, and FSDP shards one kind; give all of "
            "them one precision in the method's options, or launch without use_fsdp"
        )


def _asked(variable: str) -> bool:
    """Whether the launcher has switched this on."""
    return os.environ.get(variable, "").lower() in ("1", "true", "yes")


def gathered(value: Tensor) -> Tensor:
    """A sharded tensor whole, any other value as it is; all processes must ask."""
    return value.full_tensor() if isinstance(value, DTensor) else value


def told(accelerator: Accelerator, value: Any) -> Any:
    """The main process's value, on all of them; each must ask."""
    return value if accelerator.num_processes == 1 else broadcast_object_list([value])[0]


def alike(value: Tensor, parameter: Tensor) -> Tensor:
    """A whole value sharded as `parameter` is, where it is and the shapes are the same; else as it is."""
    if isinstance(parameter, DTensor) and value.shape == parameter.shape:
        return distribute_tensor(value.to(parameter.device), parameter.device_mesh, parameter.placements)
    return value


def take(path: str, method: LatentMethod, own: dict[str, Tensor]) -> None:
    """Begin with another run's weights: of `own`, by name, those that it has in the same shape become its.

    ValueError, one sentence, for a run of another method, or with nothing that fits.
    """
    about, tensors = read_weights(path)
    fitting = [name for name, value in tensors.items() if name in own and value.shape == own[name].shape]
    if about["method"] != method.name or not fitting:
        raise ValueError(
            f"nothing in {path} ({about['method']} on {about['backbone']}) can be begun with by {method.name} on "
            f"{method.backbone.name}; give a run of the same method and backbone"
        )
    for name in fitting:
        own[name].data.copy_(alike(tensors[name], own[name]))


@contextmanager
def gathered_module(model: nn.Module) -> Iterator[None]:
    """Inside, a sharded method's own weights are whole on each process, for calls other than forward.

    The backbone's layers gather theirs at each call anyway. What is returned may be a view of the weights: use it here.
    """
    if not isinstance(model, FSDPModule):
        yield
        return
    model.unshard()
    try:
        yield
    finally:
        model.reshard()
