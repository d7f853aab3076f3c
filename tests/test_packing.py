"""Packed rows: every token is computed once, and layers that torch.compile has fused say the same."""

from typing import Any

import pytest
import torch
import transformers
from test_backbone import prompts
from test_prefixes import loss_and_gradient

from workbench.attention import shareable
from workbench.backbone import Backbone, Decoding
from workbench.packing import compiled
from workbench.plan import TrainConfig
from workbench.prefixes import Prefixes


def test_rows_are_not_padded(tiny, monkeypatch):
    """The model sees every token once, and with `padded` a rectangle."""
    backbone, shapes = tiny("llama"), []
    assert shareable(backbone.model)
    inner: Any = backbone.model.base_model
    forward = inner.forward

    def told(inputs_embeds, **given):
        shapes.append(tuple(inputs_embeds.shape[:2]))
        return forward(inputs_embeds=inputs_embeds, **given)

    monkeypatch.setattr(inner, "forward", told)
    given = prompts(backbone)
    behind = [4 + len(p.after) + len(p.target) - 1 for p in given]
    backbone.prefixes = Prefixes("off")
    loss_and_gradient(backbone, given)
    assert shapes == [(1, sum(len(p.before) for p in given)), (1, sum(behind))]
    backbone.padded = True
    loss_and_gradient(backbone, given)
    assert shapes[2:] == [(3, max(len(p.before) for p in given)), (3, max(behind))]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor")  # torch's own look, which it hides by a filter
@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_compiled_layers_have_the_same_gradients_and_only_packed_rows_use_them(tiny, family, monkeypatch):
    """The compiler's own kernels are not made here, which takes a C++ compiler and half a minute."""
    calls, compile_ = [], torch.compile

    def made(forward, dynamic):
        assert dynamic
        traced = compile_(forward, dynamic=True, backend="eager")
        return lambda *args, **given: calls.append(0) or traced(*args, **given)

    monkeypatch.setattr(torch, "compile", made)
    backbone = tiny(family)
    backbone.prefixes = Prefixes("off")
    layers = backbone.model.config.num_hidden_layers
    plain = loss_and_gradient(backbone, prompts(backbone))
    rows = torch.randn(2, 5, backbone.width, generator=torch.Generator().manual_seed(0)).unbind()
    written = backbone.generate(rows, Decoding(4))
    with compiled(backbone.model):
        for found in (loss_and_gradient(backbone, prompts(backbone)), loss_and_gradient(backbone, prompts(backbone))):
            torch.testing.assert_close(found, plain, atol=1e-5, rtol=1e-4)
        assert len(calls) == 2 * 2 * layers  # prefixes, then rows, twice
        assert backbone.generate(rows, Decoding(4)) == written
        backbone.padded = True
        torch.testing.assert_close(loss_and_gradient(backbone, prompts(backbone)), plain, atol=1e-5, rtol=1e-4)
        assert len(calls) == 2 * 2 * layers
    backbone.padded = False
    loss_and_gradient(backbone, prompts(backbone))
    assert len(calls) == 2 * 2 * layers


@pytest.mark.parametrize("other", ["padded", "full_logits", "gradient_checkpointing"])
def test_what_is_not_packed_is_not_compiled(other):
    settings: dict[str, Any] = {"compile": True, other: True}
    with pytest.raises(ValueError, match=rf"compile and {other} .*: only packed layers are compiled; give one"):
        TrainConfig(**settings)


def of_kind(kind: str) -> Backbone:
    """A tiny random model of another family, in float64."""
    sizes = {"hidden_size": 32, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    sizes |= {} if kind == "Falcon" else {"num_key_value_heads": 2}
    small = {"qk_nope_head_dim": 16, "qk_rope_head_dim": 8, "v_head_dim": 16}
    ranks = {"kv_lora_rank": 16, "q_lora_rank": 16, "first_k_dense_replace": 2}
    shape = sizes | (small | ranks if kind == "DeepseekV3" else {})
    config = getattr(transformers, f"{kind}Config")(vocab_size=129, initializer_range=0.2, pad_token_id=0, **shape)
    torch.manual_seed(0)
    return Backbone(transformers.AutoModelForCausalLM.from_config(config).double(), Backbone.load().tokenizer, kind)


@pytest.mark.parametrize("kind", ["StableLm", "Nemotron", "Falcon", "DeepseekV3"])
def test_models_whose_attention_is_of_another_kind_are_padded(kind):
    """Some do not hand on what they are given; of DeepSeek's, whose do, values are smaller than keys."""
    backbone = of_kind(kind)
    assert shareable(backbone.model) == (kind == "DeepseekV3")
    found = {}
    for mode in ("plain", "off", "constant", "full"):
        backbone.padded, backbone.prefixes = mode == "plain", Prefixes("off" if mode == "plain" else mode)
        found[mode] = [loss_and_gradient(backbone, prompts(backbone)) for _ in range(2)]
        torch.testing.assert_close(found[mode], found["plain"], atol=1e-6, rtol=1e-6)
