"""Models to measure with, of random weights: what they say is nonsense, how long it takes is not."""

from typing import Any

import torch
from transformers import AutoTokenizer, Qwen3Config, Qwen3ForCausalLM

from ..backbone import Backbone
from ..places import BACKBONES

# As in the config of Qwen/Qwen3-8B.
EIGHT_BILLION = Qwen3Config(
    hidden_size=4096, intermediate_size=12288, num_hidden_layers=36, num_attention_heads=32, num_key_value_heads=8,
    head_dim=128, vocab_size=151936, max_position_embeddings=40960, tie_word_embeddings=False, rms_norm_eps=1e-6,
    bos_token_id=1, eos_token_id=2, pad_token_id=0,
)  # fmt: skip
MID_SIZE = Qwen3Config(
    hidden_size=512, intermediate_size=1536, num_hidden_layers=8, num_attention_heads=8, num_key_value_heads=4,
    head_dim=64, vocab_size=8192, max_position_embeddings=2048, tie_word_embeddings=True, bos_token_id=1,
    eos_token_id=2, pad_token_id=0,
)  # fmt: skip


def mid_size(seed: int = 0) -> Backbone:
    """A Qwen3 of 29 million weights in float32."""
    return random_backbone(MID_SIZE, "mid-size", torch.float32, torch.device("cpu"), seed)


def eight_billion(device: torch.device) -> Backbone:
    """A Qwen3 of the shape of its 8B model in bfloat16, 16 GB, made where it is to lie."""
    return random_backbone(EIGHT_BILLION, "8b-shaped", torch.bfloat16, device)


def random_backbone(
    config: Qwen3Config, name: str, dtype: torch.dtype, device: torch.device, seed: int = 0
) -> Backbone:
    """A random model with the shipped backbone's tokenizer, whose ids are the first of its vocabulary."""
    before = torch.get_default_dtype()
    devices = [device] if device.type == "cuda" else []
    with torch.random.fork_rng(devices=devices), device:
        torch.manual_seed(seed)
        torch.set_default_dtype(dtype)
        try:
            model: Any = Qwen3ForCausalLM(config)
        finally:
            torch.set_default_dtype(before)
    return Backbone(model, AutoTokenizer.from_pretrained(BACKBONES / "nano"), name)
