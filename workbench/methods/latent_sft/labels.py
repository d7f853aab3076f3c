"""Soft labels in one file: of each chain the words of its latents and their weights, with what they were made by.

    tokens [slot, component]   weights [slot, component]   starts [chain + 1]   ids, manifest, checksum

A safetensors file, which is mapped into memory. Labels are known by their examples' ids. While it is made, what is done
lies beside it, batch by batch (`FILE.parts`), each with a checksum; made again, writing goes on from there.
"""

import json
import shutil
from collections.abc import Sequence
from hashlib import blake2b
from io import BytesIO
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor

from ...files import digest, from_json, lasting, shown
from ..base import Prompt

if TYPE_CHECKING:
    from .reading import Reading

BATCH = 256  # chains that are encoded and kept together
KEY = "latent-sft labels"
SAME = ("tokenizer", "ratio", "components", "words", "marks")  # must be those of who reads them


def manifest(method: "Reading") -> dict[str, Any]:
    """What labels hang on besides the chains: settings, and checksums of tokenizer and encoder."""
    config, encoder = method.config, method.encoder
    vocabulary = sorted(method.backbone.tokenizer.get_vocab().items())
    about: dict[str, Any] = {name: getattr(config, name) for name in ("ratio", "components", "words", "marks")}
    about |= {
        "readout": config.readout,
        "encoder_positions": config.encoder_positions,
        "temperature": config.temperature,
    }
    about |= {"induction_mask": config.induction_mask, "tokenizer": digest([json.dumps(vocabulary)])}
    if encoder is not None:
        weights = [*encoder.state_dict().items(), ("compress", method.compress), ("table", method.backbone.table)]
        about["encoder"] = _digest(dict(weights))
    return about


def write_labels(method: "Reading", prompts: Sequence[Prompt], path: str | Path) -> Path:
    """Write the labels of these prompts, by the method's encoder; what an interrupted call has done is gone on from.

    A file that is there and holds just these is left as it is; ValueError, one sentence, for any other.
    """
    path = Path(path)
    if method.encoder is None:
        raise ValueError("there is no encoder to make labels; give a method that has one (options.encoder)")
    if method.config.thought == "hidden":
        raise ValueError("files of labels hold superpositions; train thought=hidden without one")
    about = manifest(method)
    if path.exists():
        _checked(path, _open(path), about, prompts, of="this encoder")
        return path
    parts, found = path.with_name(path.name + ".parts"), []
    parts.mkdir(parents=True, exist_ok=True)
    for start in range(0, len(prompts), BATCH):
        batch = prompts[start : start + BATCH]
        key = digest([json.dumps(about, sort_keys=True), *map(_chain_digest, batch)])
        part = parts / f"{start // BATCH:06d}-{key}.pt"
        own = _part(part)
        if own is None:
            own = [(labels["tokens"].int(), labels["weights"].float()) for labels in method.labels(batch)]
            _keep(part, own)
        found += own
    _write(path, about, prompts, found)
    shutil.rmtree(parts)
    return path


def read_labels(method: "Reading", path: str | Path, prompts: Sequence[Prompt]) -> list[dict[str, Tensor]]:
    """The labels of these prompts; ValueError, one sentence, for a file that is damaged or of something else."""
    path = Path(path)
    if not path.is_file():
        raise ValueError(f"no labels at {path}; make them with write_labels")
    about, tensors = _open(path)
    own = manifest(method)
    _checked(path, (about, tensors), {name: own[name] for name in SAME}, prompts, of="this method")
    at = {name: k for k, name in enumerate(about["ids"])}
    starts, found = tensors["starts"].tolist(), []
    for prompt in prompts:
        k = at[prompt.example.id]
        piece = slice(starts[k], starts[k + 1])
        found.append({"tokens": tensors["tokens"][piece].long(), "weights": tensors["weights"][piece].clone()})
    return found


def _checked(
    path: Path, file: tuple[dict[str, Any], dict[str, Tensor]], wanted: dict[str, Any], prompts: Sequence[Prompt],
    of: str,
) -> None:  # fmt: skip
    """ValueError unless a file is of these settings and holds the labels of these chains, one for each segment."""
    about, tensors = file
    made, starts = about["manifest"], tensors["starts"]
    for name, value in wanted.items():
        if made.get(name) != value:
            raise ValueError(
                f"the labels in {path} are not of {of}: their {name} is {shown(made.get(name))}, here it is "
                f"{shown(value)}; make them again, elsewhere or after removing the file"
            )
    at = {name: k for k, name in enumerate(about["ids"])}
    for prompt in prompts:
        name = prompt.example.id
        k = at.get(name)
        if k is None:
            raise ValueError(f"the labels in {path} lack example {shown(name)!r}; make them for these examples")
        if about["chains"][k] != _chain_digest(prompt):
            raise ValueError(
                f"the labels in {path} for example {shown(name)!r} are of another question or chain; make them again"
            )
        length = sum(map(len, prompt.steps))
        if int(starts[k + 1] - starts[k]) != -(-length // made["ratio"]):
            raise ValueError(
                f"the labels in {path} for example {shown(name)!r} are {int(starts[k + 1] - starts[k])}, and a chain "
                f"of {length} tokens at ratio {made['ratio']} has {-(-length // made['ratio'])}; make them again"
            )


def _chain_digest(prompt: Prompt) -> str:
    """A checksum of what the encoder reads of an example."""
    pieces = [prompt.before, *prompt.steps, prompt.after]
    return digest([prompt.example.id, *(piece.cpu().numpy().tobytes() for piece in pieces)])


def _digest(tensors: dict[str, Tensor]) -> str:
    found = blake2b(digest_size=16)
    for name, value in sorted(tensors.items()):
        plain = value.detach().cpu().contiguous()
        found.update(f"{name} {plain.dtype} {tuple(plain.shape)}".encode())
        found.update(plain.reshape(-1).view(torch.uint8).numpy().data)
    return found.hexdigest()


def _write(
    path: Path, about: dict[str, Any], prompts: Sequence[Prompt], labels: Sequence[tuple[Tensor, Tensor]]
) -> None:
    from safetensors.torch import save_file

    starts = torch.tensor([0, *(len(tokens) for tokens, _ in labels)]).cumsum(0)
    tensors = {
        "starts": starts,
        "tokens": torch.cat([tokens for tokens, _ in labels]),
        "weights": torch.cat([weights for _, weights in labels]),
    }
    said = {"manifest": about, "ids": [p.example.id for p in prompts], "chains": [_chain_digest(p) for p in prompts]}
    said["digest"] = digest([json.dumps(said, sort_keys=True), _digest(tensors)])
    with lasting(path) as temporary:
        save_file(tensors, temporary, metadata={KEY: json.dumps(said)})


def _open(path: Path) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """What a file says of itself, and its tensors, after its checksum."""
    from safetensors import SafetensorError, safe_open

    advice = "make it again with write_labels"
    try:
        with safe_open(path, "pt") as file:
            metadata = file.metadata() or {}
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  (a reader, not a dict)
    except (SafetensorError, OSError, RuntimeError, AttributeError) as error:
        raise ValueError(f"{path} is damaged or no file of labels ({shown(error)}); {advice}") from error
    if KEY not in metadata:
        raise ValueError(f"{path} is no file of labels; {advice}")
    try:
        about = from_json(metadata[KEY])
        seal = about.pop("digest")
        sound = seal == digest([json.dumps(about, sort_keys=True), _digest(tensors)])
    except (ValueError, KeyError, AttributeError, TypeError) as error:
        raise ValueError(f"{path} is damaged ({shown(error)}); {advice}") from error
    if not sound:
        raise ValueError(f"{path} is damaged (its content does not match its checksum); {advice}")
    return about, tensors


def _keep(path: Path, own: list[tuple[Tensor, Tensor]]) -> None:
    made = BytesIO()
    torch.save([(tokens.clone(), weights.clone()) for tokens, weights in own], made)
    with lasting(path) as temporary:
        temporary.write_bytes(blake2b(made.getvalue(), digest_size=16).digest() + made.getvalue())


def _part(path: Path) -> list[tuple[Tensor, Tensor]] | None:
    """What a part holds; None where there is none or it is torn: then it is made again."""
    if not path.is_file():
        return None
    content = path.read_bytes()
    if blake2b(content[16:], digest_size=16).digest() != content[:16]:
        return None
    found: Any = torch.load(BytesIO(content[16:]), weights_only=True)
    return found
