"""Shared fixtures: random language models of two layers and width 32 with a small word tokenizer. No network."""
# ruff: noqa: E402  (settings and the import hook must come before what they are for)

import os

os.environ.update(OMP_NUM_THREADS="1", TQDM_DISABLE="1", HF_HUB_OFFLINE="1", TOKENIZERS_PARALLELISM="false")

from collections.abc import Callable, Iterator
from functools import cache
from pathlib import Path
from typing import Any, Literal

import blame
import pytest
from jaxtyping import install_import_hook

# Shapes and types of every function of these modules are checked whenever a test calls it.
install_import_hook(
    ["workbench.backbone", "workbench.decoding", "workbench.methods", "workbench.thoughts"], "beartype.beartype"
)

import torch
from transformers import (
    AutoTokenizer,
    GPT2Config,
    GPT2LMHeadModel,
    LlamaConfig,
    LlamaForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)
from transformers.utils import logging

from workbench.backbone import Backbone
from workbench.pretrain import make_tokenizer

torch.set_num_threads(1)
logging.disable_progress_bar()

Family = Literal["qwen3", "llama", "gpt2"]
CHAT = (  # Qwen's shape: role and message between two marks
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{{ m.content }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


@pytest.hookimpl(tryfirst=True)  # xdist reads the groups in the same hook
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """For several workers: slow tests first and one by one, so that none is left alone at the end; others by file."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)
    for item in items:
        if not any(item.get_closest_marker(name) for name in ("slow", "xdist_group")):
            item.add_marker(pytest.mark.xdist_group(item.path.stem))


@pytest.fixture(autouse=True)
def warnings_of_our_own_are_errors() -> Iterator[None]:
    """Also where the warning names a frame of torch that only handed our call on."""
    with blame.raising():
        yield


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Path]:
    """tiny_folder(family, chat): the folder of a random model, for tests that name a backbone by its path."""

    @cache
    def folder(family: Family = "qwen3", chat: bool = False) -> Path:
        return save_tiny(tmp_path_factory.mktemp(f"tiny-{family}{'-chat' * chat}"), family, chat)

    return folder


@pytest.fixture(scope="session")
def tiny(tiny_folder: Callable[..., Path]) -> Callable[..., Backbone]:
    """tiny(family, chat): a fresh random backbone, the same weights every time."""

    def load(family: Family = "qwen3", chat: bool = False) -> Backbone:
        return Backbone.load(str(tiny_folder(family, chat)))

    return load


@pytest.fixture(scope="session")
def assistant(tiny_folder: Callable[..., Path], tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of a language model of another family, width (16) and vocabulary than the backbone."""
    folder = tmp_path_factory.mktemp("assistant")
    tokenizer = AutoTokenizer.from_pretrained(tiny_folder("qwen3", chat=True))
    shape = {"hidden_size": 16, "intermediate_size": 24, "num_hidden_layers": 2, "num_attention_heads": 2}
    with torch.random.fork_rng():
        torch.manual_seed(3)
        config = LlamaConfig(**shape, vocab_size=len(tokenizer), initializer_range=0.3, max_position_embeddings=512)
        model = LlamaForCausalLM(config)
        model.model.norm.weight.data.mul_(3)  # states of another size than the embeddings
        model.save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return str(folder)


def save_tiny(path: Path, family: Family = "qwen3", chat: bool = False) -> Path:
    """Write a random model and the shipped backbone's tokenizer; `chat` adds a chat template and its marks."""
    tokenizer = make_tokenizer()
    if chat:
        tokenizer.add_special_tokens({"extra_special_tokens": ["<bot>", "<eot>", "<|im_start|>", "<|im_end|>"]})
        tokenizer.add_tokens(["user", "assistant"])
        tokenizer.eos_token = "<|im_end|>"
        tokenizer.chat_template = CHAT
    random_model(family, len(tokenizer), tokenizer.eos_token_id).save_pretrained(path)
    tokenizer.save_pretrained(path)
    return path


def random_model(family: Family, vocabulary: int, eos: int | None, seed: int = 0) -> Any:
    """A causal language model with random float32 weights, large enough that attention and answers are not uniform."""
    ids = {"bos_token_id": 1, "eos_token_id": eos, "pad_token_id": 0}
    common = {"vocab_size": vocabulary, "initializer_range": 0.2, **ids}
    shape = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "max_position_embeddings": 1024}
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        if family == "gpt2":
            config = GPT2Config(n_embd=32, n_layer=2, n_head=2, n_positions=1024, **common)
            return GPT2LMHeadModel(config).eval()
        if family == "llama":
            return LlamaForCausalLM(LlamaConfig(num_attention_heads=4, num_key_value_heads=2, **shape, **common)).eval()
        heads = {"num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 16, "tie_word_embeddings": True}
        return Qwen3ForCausalLM(Qwen3Config(**heads, **shape, **common)).eval()
