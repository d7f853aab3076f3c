"""Small language models with the weights of a file of numbers."""

from collections.abc import Mapping

import torch
from tokenizers import Tokenizer
from tokenizers.models import WordLevel
from torch import Tensor
from transformers import AutoConfig, AutoModelForCausalLM, PreTrainedTokenizerFast

from ..backbone import Backbone
from .parts import Parts


def language_model(
    file: Parts, weights: Mapping[str, Tensor], names: Mapping[int, str] | None = None, end: int = 0
) -> Backbone:
    """The model of the file's config with these weights, all of them and no others, in float32 on the CPU.

    Its words are called w0, w1, ..., but for those that have `names`; answers end with the word `end`.
    """
    try:
        config = AutoConfig.for_model(**file.config)
        with torch.device("meta"):  # sizes only: whether the weights are of these is seen before any memory is taken
            model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    except Exception as error:  # what is in a config can make transformers raise anything
        reason = " ".join(str(error).split())[:100]
        raise ValueError(f"the config in {file.path} makes no causal language model ({reason}); mend it") from error
    wanted = {name: tuple(p.shape) for name, p in model.named_parameters()}
    found = {name: tuple(value.shape) for name, value in weights.items()}
    if found != wanted:
        name, shape = sorted(set(found.items()) ^ set(wanted.items()))[0]
        raise ValueError(f"the weights in {file.path} do not fit its config: {name} {shape} is there on one side only")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.load_state_dict(weights, strict=False)  # rotations are buffers, which are computed
    model.generation_config.eos_token_id = end
    words = [(names or {}).get(number, f"w{number}") for number in range(config.vocab_size)]
    level = WordLevel({word: number for number, word in enumerate(words)}, unk_token=words[end])
    ends = dict.fromkeys(("eos_token", "pad_token", "unk_token"), words[end])
    tokenizer = PreTrainedTokenizerFast(tokenizer_object=Tokenizer(level), **ends)
    return Backbone(model, tokenizer, file.path.name)
