"""Plain code for GGUF models: a file by hand, a forward pass as ggml defines it, byte-level BPE by its rules."""

import struct
import unicodedata
from pathlib import Path

import numpy as np
import regex

F32, Q4_1, Q8_0 = 0, 3, 8
U32, FLOAT, BOOL, TEXT, ARRAY, I32 = 4, 6, 7, 8, 9, 5


def packed(weights: np.ndarray, kind: int) -> bytes:
    """The bytes of a tensor, rounded to the nearest weight that the kind can say."""
    if kind == F32:
        return weights.astype("<f4").tobytes()
    found = b""
    for block in weights.reshape(-1, 32).astype(float):
        if kind == Q8_0:
            scale = np.float16(abs(block).max() / 127)
            found += scale.tobytes() + np.rint(block / float(scale)).clip(-127, 127).astype("i1").tobytes()
        else:
            least, scale = np.float16(block.min()), np.float16((block.max() - block.min()) / 15)
            places = np.rint((block - float(least)) / float(scale)).clip(0, 15).astype("u1")
            found += scale.tobytes() + least.tobytes() + (places[:16] | places[16:] << 4).tobytes()
    return found


def write(path: Path, values: dict[str, tuple[int, object]], tensors: dict[str, tuple[np.ndarray, int]]) -> None:
    """A GGUF file, version 3."""

    def text(words: str) -> bytes:
        return struct.pack("<Q", len(words.encode())) + words.encode()

    def value(kind: int, held) -> bytes:
        if kind == TEXT:
            return text(held)
        if kind == ARRAY:
            inner = TEXT if isinstance(held[0], str) else I32
            return struct.pack("<IQ", inner, len(held)) + b"".join(value(inner, one) for one in held)
        return struct.pack({U32: "<I", FLOAT: "<f", BOOL: "<?", I32: "<i"}[kind], held)

    head, data = b"GGUF" + struct.pack("<IQQ", 3, len(tensors), len(values)), b""
    for name, (kind, held) in values.items():
        head += text(name) + struct.pack("<I", kind) + value(kind, held)
    for name, (weights, kind) in tensors.items():
        shape = weights.shape[::-1]
        head += text(name) + struct.pack(f"<I{len(shape)}QIQ", len(shape), *shape, kind, len(data))
        data += packed(weights, kind)
        data += bytes(-len(data) % 32)
    path.write_bytes(head + bytes(-len(head) % 32) + data)


def logits(ids: list[int], values: dict, tensors: dict[str, np.ndarray]) -> np.ndarray:
    """[position, vocabulary] of a Llama-shaped model: neighbouring features are a rotary pair, as ggml has it."""
    heads, shared = values["llama.attention.head_count"], values["llama.attention.head_count_kv"]
    size, epsilon = values["llama.rope.dimension_count"], values["llama.attention.layer_norm_rms_epsilon"]
    angles = np.outer(np.arange(len(ids)), values["llama.rope.freq_base"] ** (-np.arange(0, size, 2) / size))

    def norm(x, name):
        return x / np.sqrt((x**2).mean(-1, keepdims=True) + epsilon) * tensors[f"{name}.weight"]

    def rotated(x):
        even, odd = x[..., ::2], x[..., 1::2]
        sine, cosine = np.sin(angles)[:, None], np.cos(angles)[:, None]
        return np.stack([even * cosine - odd * sine, even * sine + odd * cosine], -1).reshape(x.shape)

    x = tensors["token_embd.weight"][ids].astype(float)
    for layer in range(values["llama.block_count"]):
        weight = {name.split(".")[2]: w for name, w in tensors.items() if name.startswith(f"blk.{layer}.")}
        read = norm(x, f"blk.{layer}.attn_norm")
        q, k, v = (
            (read @ weight[f"attn_{part}"].T).reshape(len(ids), count, size)
            for part, count in (("q", heads), ("k", shared), ("v", shared))
        )
        q, k = rotated(q), rotated(k)
        out = np.empty_like(q)
        for head in range(heads):
            scores = q[:, head] @ k[:, head * shared // heads].T / size**0.5
            scores[np.triu_indices(len(ids), 1)] = -np.inf
            weights = np.exp(scores - scores.max(-1, keepdims=True))
            out[:, head] = weights / weights.sum(-1, keepdims=True) @ v[:, head * shared // heads]
        x = x + out.reshape(len(ids), -1) @ weight["attn_output"].T
        read = norm(x, f"blk.{layer}.ffn_norm")
        gate = read @ weight["ffn_gate"].T
        x = x + (gate / (1 + np.exp(-gate)) * (read @ weight["ffn_up"].T)) @ weight["ffn_down"].T
    return norm(x, "output_norm") @ tensors["token_embd.weight"].T


def byte_names() -> dict[int, str]:
    """GPT-2's printable name of each byte: itself, or one of the characters from 256 on."""
    shown = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = [byte for byte in range(256) if byte not in shown]
    return {byte: chr(byte) for byte in shown} | {byte: chr(256 + place) for place, byte in enumerate(others)}


WORDS = regex.compile(r"'s|'t|'re|'ve|'m|'ll|'d| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+")


def places(items: list[str]) -> dict[str, int]:
    return {item: place for place, item in enumerate(items)}


def tokens(text: str, ids: dict[str, int], rank: dict[str, int]) -> list[int]:
    """Ids of a text without control tokens: numerals one by one, GPT-2's words, then the earliest merge first.

    ids: of tokens; rank: of merges, "left right".
    """
    names, found, pieces, piece = byte_names(), [], [], ""
    for character in text:
        if unicodedata.category(character).startswith("N"):
            pieces += [piece, character]
            piece = ""
        else:
            piece += character
    for word in (word for one in [*pieces, piece] for word in WORDS.findall(one)):
        parts = [names[byte] for byte in word.encode()]
        while len(parts) > 1:
            first = min(range(len(parts) - 1), key=lambda k: rank.get(f"{parts[k]} {parts[k + 1]}", len(rank)))
            if f"{parts[first]} {parts[first + 1]}" not in rank:
                break
            parts[first : first + 2] = [parts[first] + parts[first + 1]]
        found += [ids[part] for part in parts]
    return found
