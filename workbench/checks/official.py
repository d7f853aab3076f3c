"""Weights in the files of LTA-Thinker's published code (arXiv 2509.12875): `projection.bin`, `TransformerBlock.bin`.

    method = import_official("results/checkpoint-500", Backbone.load("Qwen/Qwen3-8B"), thoughts=2)
    export_official(method, "folder")

Each file is a torch-saved state dict. On a backbone of width H with F features in its feed-forward layers:

projection.bin         bfloat16: weight (H, H), bias (H,)
TransformerBlock.bin   float32: self_attn.in_proj_weight (3H, H), self_attn.in_proj_bias (3H,),
                       self_attn.out_proj.weight (H, H), self_attn.out_proj.bias (H,), linear1.weight (F, H),
                       linear1.bias (F,), linear2.weight (H, F), linear2.bias (H,), norm1.weight (H,), norm2.weight (H,)

The published assistant path (generator="assistant") has no block: a folder of it holds `projection.bin` alone, with a
weight (H, width of the assistant). The files hold neither the number of thoughts, nor what stands at the slots, nor
which assistant it was: see `import_official`.
"""

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from ..backbone import Backbone
from ..files import quoted, shown, whole
from ..methods import build
from ..methods.lta_thinker import LTAThinker, LTAThinkerConfig

PROJECTION, BLOCK = "projection.bin", "TransformerBlock.bin"
# What the published code does at test time; a method that differs here means something else by the same weights.
SAME_MEANING = ("heads", "positions", "slots", "slot_start", "input_norm", "output_scale")


def import_official(
    folder: str | Path,
    backbone: Backbone,
    *,
    thoughts: int = LTAThinkerConfig.reference().thoughts,
    assistant: str | None = None,
) -> LTAThinker:
    """The method, in its reference configuration, with the weights of a published checkpoint folder.

    `thoughts` is the number it shall write and `assistant` the language model of a checkpoint of the assistant path
    ("" for the backbone itself), which the files do not say. Weights take the dtypes of the reference configuration
    (block float32, projection bfloat16), whatever floating point they are stored in. The slots are the tokens that the
    published code takes (`slots="token-ids"`): ids from 150001 (Qwen) or 128011 (Llama 3) on; on other backbones the
    last rows of the embedding table. Everything is checked before anything is used; a ValueError says which tensor of
    which file does not fit, what it is, what is needed and what to do.
    """
    folder = Path(folder)
    if not folder.is_dir():
        raise ValueError(f"no folder at {folder}; give one that holds {PROJECTION} and {BLOCK}")
    if not (folder / PROJECTION).is_file():
        raise ValueError(f"{folder} lacks {PROJECTION}; give a checkpoint folder that holds {PROJECTION} and {BLOCK}")
    projection = _read(folder / PROJECTION)
    config, there = LTAThinkerConfig.reference(thoughts), (folder / BLOCK).is_file()
    if assistant is not None and there:
        raise ValueError(f"{folder} holds {BLOCK}, which the assistant path does not have; leave out assistant")
    if assistant is None and not there:
        raise ValueError(_without_block(folder, projection))
    if assistant is not None:
        config = replace(config, generator="assistant", assistant=assistant)
    method = build("lta-thinker", backbone, config)
    assert isinstance(method, LTAThinker)
    parts: list[tuple[nn.Module, dict[str, Tensor], str]] = [(method.projection, projection, PROJECTION)]
    if method.block is not None:
        parts.append((method.block, _read(folder / BLOCK), BLOCK))
    models = f"{backbone.name} with assistant {assistant}" if assistant else backbone.name
    for module, found, name in parts:
        _check(module, found, folder / name, models)
    for module, found, _ in parts:
        module.load_state_dict(found)  # copies, and so casts
    method.training_step = None  # these files do not say
    return method.eval()


def export_official(method: LTAThinker, folder: str | Path) -> Path:
    """Write the method's weights as the published code saves them; the folder appears with all files or not at all.

    The projection is rounded to bfloat16, which the published code would do on loading. ValueError when the folder
    holds something already, or when the method differs from the published one in what its weights mean.
    """
    folder, reference = Path(folder), LTAThinkerConfig.reference()
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} is there already; give a new folder, so that files of two checkpoints never mix")
    if method.config.generator == "linear":
        raise ValueError(
            "the published code has no generator='linear', so its files cannot hold this method; train one with "
            "generator='block' (--preset reference) or 'assistant'"
        )
    heads = 1 if method.block is None else method.block.self_attn.num_heads
    config = replace(method.config, heads=heads)
    other = [name for name in SAME_MEANING if getattr(config, name) != getattr(reference, name)]
    if other:
        ours = ", ".join(f"{name}={getattr(config, name)!r}" for name in other)
        needed = ", ".join(f"{name}={getattr(reference, name)!r}" for name in other)
        raise ValueError(
            f"the published code has no {ours}, so its files cannot hold this method; train one with {needed} "
            "(--preset reference)"
        )
    with whole(folder) as temporary:
        temporary.mkdir()
        torch.save(_state(method.projection, torch.bfloat16), temporary / PROJECTION)
        if method.block is not None:
            torch.save(_state(method.block, torch.float32), temporary / BLOCK)
    return folder


def _state(module: nn.Module, dtype: torch.dtype) -> dict[str, Tensor]:
    return {name: tensor.detach().to("cpu", dtype).contiguous() for name, tensor in module.state_dict().items()}


def _read(path: Path) -> dict[str, Tensor]:
    """The state dict in a file, on the CPU. Only tensors are unpickled: a file from elsewhere can run no code."""
    advice = "give the file as the published code saved it (torch.save of a state dict)"
    try:
        found: Any = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # of a damaged pickle: Python's manual names any exception
        raise ValueError(
            f"{path} holds no tensors that torch can load safely ({_first_line(error)}); {advice}"
        ) from error
    if not isinstance(found, dict):
        raise ValueError(f"{path} holds a {type(found).__name__} where a state dict is needed; {advice}")
    for name, tensor in found.items():
        if not isinstance(tensor, Tensor) or not tensor.is_floating_point():
            kind = str(tensor.dtype) if isinstance(tensor, Tensor) else type(tensor).__name__
            raise ValueError(f"{path}: {quoted(name)} is {kind} where a floating-point tensor is needed; {advice}")
        if tensor.layout != torch.strided or tensor.device.type != "cpu":
            raise ValueError(f"{path}: {quoted(name)} is a {tensor.layout} tensor on {tensor.device}; {advice}")
        if not bool(tensor.float().isfinite().all()):
            raise ValueError(
                f"{path}: tensor {quoted(name)} holds numbers that are not finite; give a sound checkpoint"
            )
    return dict(found)


def _first_line(error: Exception) -> str:
    return shown((str(error).strip().splitlines() or [type(error).__name__])[0].rstrip("."))


def _without_block(folder: Path, projection: dict[str, Tensor]) -> str:
    """What a folder with a projection alone is."""
    shape = tuple(projection["weight"].shape) if "weight" in projection else ()
    if len(shape) == 2 and shape[0] != shape[1]:
        return (
            f"{folder} is a checkpoint of the published assistant path (no {BLOCK}, and the projection's weight is "
            f"{shape}: from the states of a small language model of width {shape[1]}); give assistant=..., the name of "
            f"that model, or a checkpoint with {BLOCK}"
        )
    return (
        f"{folder} holds {PROJECTION} without {BLOCK}, as the 'ckpt' folder does that the published training writes at "
        "its end, where the block is forgotten; give one of its per-epoch folders, results/.../checkpoint-*"
    )


def _check(module: nn.Module, found: dict[str, Tensor], path: Path, backbone: str) -> None:
    """ValueError unless names and shapes are those of the module."""
    wanted = {name: tuple(tensor.shape) for name, tensor in module.state_dict().items()}
    names = ", ".join(wanted)
    for name in wanted:
        if name not in found:
            raise ValueError(f"{path} lacks tensor {name!r}; it needs {names}: give a whole file")
    for name in found:
        if name not in wanted:
            raise ValueError(
                f"{path} has a tensor {quoted(name)} that is not part of LTA-Thinker; give a file with {names} only"
            )
    for name, shape in wanted.items():
        given = tuple(found[name].shape)
        if given != shape:
            raise ValueError(
                f"{path}: tensor {name!r} has shape {given}, but backbone {backbone!r} needs {shape}; load the "
                "backbone this checkpoint was trained on"
            )
