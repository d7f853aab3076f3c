"""What writes LTA-Thinker's thoughts: block, linear layer or assistant; positions; slots; how much of it is trained."""

from dataclasses import replace

import pytest
import torch
from conftest import random_model
from lta_plain import same_losses
from safetensors.torch import load_file
from transformers import (
    LlamaConfig,
    LlamaForCausalLM,
    Qwen2Config,
    Qwen2ForCausalLM,
    Qwen3Config,
    Qwen3ForCausalLM,
)

from workbench.backbone import Backbone
from workbench.methods import build
from workbench.methods.lta_thinker import DEGENERATE, LTAThinker, LTAThinkerConfig, sinusoids, slot_ids, with_mean
from workbench.runs import load_method, save_weights
from workbench.tasks import load_task

WEIGHTS = {"alignment_weight": 0.3, "focus_weight": 0.2}


@pytest.fixture
def prompts(tiny):
    task = load_task("arith-shift")
    method = build("lta-thinker", tiny())
    return [method.render(e, task) for e in task.examples("train", 20) if len(e.steps) != 2][3:8]


def shuffled(prompt):
    """The same example with the question's words in another order."""
    words = prompt.question
    other = words[torch.randperm(len(words), generator=torch.Generator().manual_seed(1))]
    assert not torch.equal(other, words)
    return replace(prompt, question=other)


def longer(prompt):
    """A batch mate with a question so long that the others are padded."""
    question = " ".join([prompt.example.question] * 3)
    return replace(prompt, question=prompt.question.repeat(3), example=replace(prompt.example, question=question))


# ------------------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize(
    "options", [{"generator": "linear"}, {"generator": "assistant"}, {"positions": True}], ids=lambda o: next(iter(o))
)
def test_losses_and_gradients_equal_the_formulas(tiny, prompts, options):
    same_losses(build("lta-thinker", tiny(), LTAThinkerConfig(thoughts=3, **WEIGHTS, **options)), prompts)


@pytest.mark.parametrize("family", ["qwen3", "gpt2"])
def test_an_assistant_of_its_own_reads_in_its_own_words(tiny, prompts, assistant, family):
    config = LTAThinkerConfig(thoughts=3, generator="assistant", assistant=assistant, **WEIGHTS)
    backbone = tiny(family)
    method = build("lta-thinker", backbone, config)
    assert method.reader.width == 16
    assert tuple(method.projection.weight.shape) == (32, 16)
    own = method.reader.ids(method.reader.chat(prompts[0].example.question))
    assert method.reader.tokenizer.decode(own).replace(" ", "").endswith("assistant\n")
    same_losses(method, prompts)


def test_an_assistant_reads_placeholder_tokens_and_only_the_linear_layer_learns(tiny, prompts, assistant):
    config = LTAThinkerConfig(thoughts=3, generator="assistant", assistant=assistant, slots="token-ids")
    method = build("lta-thinker", tiny(), replace(config, input_norm="none", output_scale=None))
    reader = method.reader
    assert method.slot_ids.tolist() == list(range(len(reader.table)))[-3:]
    ids = torch.cat([reader.ids(reader.chat(prompts[0].example.question)), method.slot_ids])
    states = reader.model(ids[None], output_hidden_states=True).hidden_states[-1][0, -3:]
    torch.testing.assert_close(method.think(prompts[:1]).vectors[0, 0], method.projection(states))
    assert {name for name, p in method.named_parameters() if p.requires_grad} == {
        "projection.weight",
        "projection.bias",
    }
    method.loss(prompts).total.backward()
    assert all(p.grad is None for p in reader.parameters())
    assert method.trainable_parameters == 32 * 16 + 32


# ------------------------------------------------------------------------------------------------------------ assistant


@pytest.mark.parametrize("slots", ["learned", "token-ids"])
def test_a_saved_assistant_method_comes_back_without_the_assistants_weights(tiny, prompts, assistant, slots, tmp_path):
    config = LTAThinkerConfig(thoughts=3, generator="assistant", assistant=assistant, slots=slots)
    method = build("lta-thinker", tiny(), config, seed=4)
    saved = load_file(save_weights(method, tmp_path))
    assert set(saved) == {"projection.weight", "projection.bias"} | ({"slots"} if slots == "learned" else set())
    again = load_method(tmp_path)
    assert again.config == config
    assert torch.equal(again.think(prompts).vectors, method.think(prompts).vectors)


@pytest.mark.parametrize(
    "options", [{"context": "leaky"}, {"step_vectors": "turn-end"}, {"slots": "token-ids"}], ids=str
)
def test_batch_mates_change_nothing_an_assistant_says(tiny, prompts, assistant, options):
    method = build("lta-thinker", tiny(), LTAThinkerConfig(generator="assistant", assistant=assistant, **options))
    given = [*prompts[:2], longer(prompts[2])]
    alone = torch.cat([method.think([p]).vectors for p in given])
    torch.testing.assert_close(method.think(given).vectors, alone, atol=1e-5, rtol=1e-4)
    apart = torch.stack([method.loss([p]).total for p in given]).mean()
    torch.testing.assert_close(method.loss(given).total, apart, atol=1e-5, rtol=1e-5)


def test_an_assistants_states_at_turn_ends_are_not_degenerate(tiny, prompts):
    """It reads in order, so the ends of two steps are two vectors; the block's are one (published)."""
    published = replace(LTAThinkerConfig.reference(), projection_dtype="float32")
    flags = [
        bool(build("lta-thinker", tiny(), config).loss(prompts).warnings[DEGENERATE])
        for config in (published, replace(published, generator="assistant"), replace(published, positions=True))
    ]
    assert flags == [True, False, False]


def test_a_leaky_assistant_reads_question_steps_and_slots_in_this_order(tiny, prompts):
    config = replace(LTAThinkerConfig.reference(2), generator="assistant", projection_dtype="float32")
    method = build("lta-thinker", tiny(), config)
    given = [p for p in prompts if len(p.steps) == 3][:1] + [p for p in prompts if len(p.steps) == 1][:1]
    question, thoughts, ends = method._read(given, leaky=True)
    for k, p in enumerate(given):
        parts = [method.reader.ids(method.reader.chat(p.example.question))]
        parts += [torch.cat([step, method.turn_end]) for step in p.steps]
        row = torch.cat([*parts, method.slot_ids])
        states = method.projection(method.reader.model(row[None], output_hidden_states=True).hidden_states[-1])[0]
        places = torch.tensor([len(part) for part in parts]).cumsum(0) - 1
        torch.testing.assert_close(question[k], states[places[0]])
        torch.testing.assert_close(ends[k, : len(p.steps)], states[places[1:]])
        torch.testing.assert_close(thoughts[k], states[-2:])
    # what comes later does not reach the anchor
    torch.testing.assert_close(question, method._read(given, leaky=False)[0])


def test_a_missing_assistant_is_one_sentence(tiny):
    config = LTAThinkerConfig(generator="assistant", assistant="nobody")
    with pytest.raises(ValueError, match="no backbone at 'nobody': give a shipped name"):
        build("lta-thinker", tiny(), config)


def test_a_frozen_language_model_has_no_dropout_while_a_method_trains(tiny, prompts):
    """GPT-2's configuration has dropout 0.1."""
    method = build("lta-thinker", tiny("gpt2"), LTAThinkerConfig(generator="assistant")).train()
    assert torch.equal(method.loss(prompts).total, method.loss(prompts).total)
    assert method.projection.training


# -------------------------------------------------------------------------------------------------- positions and order


def test_without_positions_the_order_of_words_is_invisible_and_with_them_it_is_not(tiny, prompts):
    other = [shuffled(p) for p in prompts]
    for positions, seen in ((False, False), (True, True)):
        method = build("lta-thinker", tiny(), LTAThinkerConfig(positions=positions))
        change = (method.think(prompts).vectors - method.think(other).vectors).abs().max()
        assert (change > 1e-3) == seen
        assert change < 1e-6 or seen


def test_the_linear_generator_sees_the_question_but_not_its_order(tiny, prompts):
    method = build("lta-thinker", tiny(), LTAThinkerConfig(generator="linear"))
    thoughts = method.think(prompts).vectors
    torch.testing.assert_close(method.think([shuffled(p) for p in prompts]).vectors, thoughts)
    assert (thoughts[0] - thoughts[1]).abs().max() > 1e-3
    assert (thoughts[:, 0, 0] - thoughts[:, 0, 1]).abs().max() > 1e-3


@pytest.mark.parametrize("input_norm", ["unit-rms", "none"])
def test_left_padding_moves_no_position(tiny, prompts, input_norm):
    for context in ("question", "leaky"):
        config = LTAThinkerConfig(positions=True, input_norm=input_norm, context=context)
        method = build("lta-thinker", tiny(), config)
        mates = [prompts[0], longer(prompts[1])]
        torch.testing.assert_close(
            method.think(mates).vectors[:1], method.think(prompts[:1]).vectors, atol=1e-6, rtol=1e-4
        )
        apart = torch.stack([method.loss([p]).total for p in mates]).mean()
        torch.testing.assert_close(method.loss(mates).total, apart, atol=1e-5, rtol=1e-5)


def test_raw_inputs_get_positions_of_their_own_size(tiny, prompts):
    """Without a norm, embeddings are small: positions of size one would leave nothing of them."""
    method = build("lta-thinker", tiny(), LTAThinkerConfig(positions=True, input_norm="none", slots="token-ids"))
    seen = []
    method.block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    method.think(prompts[:1])
    plain = build("lta-thinker", tiny(), LTAThinkerConfig(input_norm="none", slots="token-ids"))
    plain.block.register_forward_pre_hook(lambda _, given: seen.append(given[0]))
    plain.think(prompts[:1])
    added = seen[0] - seen[1]
    expected = method.unit * sinusoids(torch.arange(added.shape[1])[None], added.shape[2])
    torch.testing.assert_close(added, expected, atol=1e-6, rtol=1e-4)


@pytest.mark.parametrize("width", [1, 4, 7, 32])
def test_sinusoids(width):
    found = sinusoids(torch.tensor([[0, 1, 5, 700]]), width)
    assert found.shape == (1, 4, width)
    half = (width + 1) // 2
    for k in range(half):
        rate = 10000 ** (-k / half)
        torch.testing.assert_close(found[0, :, k], (torch.tensor([0, 1, 5, 700.0]) * rate).sin(), atol=1e-4, rtol=0)
    if width % 2 == 0:
        torch.testing.assert_close(found.square().mean(-1), torch.full((1, 4), 0.5))  # sin^2 + cos^2 = 1


def test_the_mean_is_of_the_text_alone():
    inputs = torch.tensor([[[99.0], [1.0], [3.0], [7.0]]])
    text = torch.tensor([[False, True, True, False]])  # padding, two words, a slot
    assert with_mean(inputs, text, torch.tensor([[3, 2]])).flatten().tolist() == [9.0, 5.0]


# ---------------------------------------------------------------------------------------------------------------- slots


def big_backbone(tokenizer, vocabulary):
    """A language model with a table of that many rows, which holds no numbers."""
    with torch.device("meta"):
        return Backbone(random_model("qwen3", vocabulary, 1), tokenizer, "big")


def test_slots_are_the_published_tokens_where_the_vocabulary_is_known(tiny):
    qwen = tiny(chat=True).tokenizer
    assert slot_ids(big_backbone(qwen, 151936), 3).tolist() == [150001, 150002, 150003]
    assert slot_ids(big_backbone(qwen, 150001), 2).tolist() == [149999, 150000]  # no such row: as with any other
    llama = tiny().tokenizer
    assert slot_ids(big_backbone(llama, 500), 2).tolist() == [498, 499]
    llama.add_tokens(["<|reserved_special_token_3|>", "<|reserved_special_token_4|>"])
    first = llama.convert_tokens_to_ids("<|reserved_special_token_3|>")
    assert slot_ids(big_backbone(llama, 128256), 3).tolist() == [first, first + 1, first + 2]


def test_a_slot_start_is_taken_and_must_fit(tiny, prompts):
    backbone = tiny()
    size = len(backbone.table)
    config = LTAThinkerConfig(slots="token-ids", thoughts=2, slot_start=7)
    at_seven = build("lta-thinker", backbone, config).think(prompts).vectors
    at_the_end = build("lta-thinker", backbone, replace(config, slot_start=None)).think(prompts).vectors
    assert torch.equal(
        build("lta-thinker", backbone, replace(config, slot_start=size - 2)).think(prompts).vectors, at_the_end
    )
    assert not torch.equal(at_seven, at_the_end)
    for start, count in ((size - 1, 2), (size + 5, 1)):
        with pytest.raises(
            ValueError, match=rf"{count} slots from id {start} on do not fit into the {size} tokens of .*; give"
        ):
            build("lta-thinker", backbone, replace(config, slot_start=start, thoughts=count))
    count = size + 1
    with pytest.raises(ValueError, match=f"{count} slots from id -1 on do not fit into the {size} tokens"):
        slot_ids(backbone, count)


@pytest.mark.parametrize("slots", ["learned", "token-ids"])
@pytest.mark.parametrize("generator", ["block", "linear", "assistant"])
def test_one_to_many_thoughts(tiny, prompts, generator, slots):
    for count in (1, 32):
        method = build("lta-thinker", tiny(), LTAThinkerConfig(thoughts=count, generator=generator, slots=slots))
        losses = method.loss(prompts)
        assert method.think(prompts).vectors.shape == (5, 1, count, 32)
        assert torch.isfinite(losses.total)
        losses.total.backward()
        assert method.projection.weight.grad.abs().sum() > 0


# ----------------------------------------------------------------------------------------------------------- parameters


QWEN25 = (Qwen2ForCausalLM, Qwen2Config, 3584, 18944)
QWEN3 = (Qwen3ForCausalLM, Qwen3Config, 4096, 12288)
LLAMA = (LlamaForCausalLM, LlamaConfig, 4096, 14336)


@pytest.mark.parametrize(
    ("family", "block", "projection", "total"),
    [
        (QWEN25, 187_214_848, 12_848_640, 200_063_488),
        (QWEN3, 167_813_120, 16_781_312, 184_594_432),
        (LLAMA, 184_592_384, 16_781_312, 201_373_696),
    ],
    ids=["qwen2.5-7b", "qwen3-8b", "llama-3.1-8b"],
)
def test_published_parameter_counts(tiny, family, block, projection, total):
    """On tensors without storage: the shapes of the real models, in one layer."""
    model, config, width, hidden = family
    shape = {"hidden_size": width, "intermediate_size": hidden, "num_hidden_layers": 1, "vocab_size": 200}
    tokenizer = tiny().tokenizer
    with torch.device("meta"):
        backbone = Backbone(model(config(**shape)), tokenizer, "big")
        method = LTAThinker(backbone, LTAThinkerConfig.reference(2))
        assistant = LTAThinker(backbone, replace(LTAThinkerConfig.reference(2), generator="assistant"))
        learned = LTAThinker(backbone, LTAThinkerConfig(thoughts=5))
    assert method.projection.weight.is_meta
    assert sum(p.numel() for p in method.block.parameters()) == block
    assert block == 4 * width**2 + 4 * width + 2 * width * hidden + hidden + width + 2 * width
    assert method.trainable_parameters == total == block + projection
    assert assistant.trainable_parameters == projection == width**2 + width
    assert learned.trainable_parameters == total + 5 * width


# -------------------------------------------------------------------------------------------------------------- options


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"assistant": "nano"}, "assistant='nano' would change nothing here: it needs generator='assistant'"),
        ({"generator": "linear", "positions": True}, "positions=True would change nothing .* generator='block'"),
        ({"generator": "assistant", "positions": True}, "positions=True would change nothing .* generator='block'"),
        ({"generator": "linear", "heads": 2}, "heads=2 would change nothing here: it needs generator='block'"),
        ({"slot_start": 3}, "slot_start=3 would change nothing here: it needs slots='token-ids'"),
        ({"slots": "token-ids", "slot_start": -1}, "slot_start is -1; give a number from 0 to"),
    ],
    ids=str,
)
def test_options_that_make_no_sense_are_named(options, sentence):
    with pytest.raises(ValueError, match=sentence):
        LTAThinkerConfig(**options)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (
            "generator",
            "linaer",
            "unknown generator 'linaer': use one of assistant, block, linear; did you mean 'linear'",
        ),
        ("alignment", "kl", "unknown alignment 'kl': use one of cosine, feature-kl, none, vocabulary-kl"),
        ("positive", "first", "unknown positive 'first': use one of answer, last, middle, oracle, random"),
        ("context", "all", "unknown context 'all': use one of leaky, question"),
    ],
)
def test_a_choice_that_is_none_is_named(name, value, sentence):
    config = LTAThinkerConfig()
    object.__setattr__(config, name, value)  # the constructor's types are checked in tests, and only here
    with pytest.raises(ValueError, match=sentence):
        config.__post_init__()


def test_heads_must_divide_the_width(tiny):
    with pytest.raises(ValueError, match="heads is 5; give a divisor of the backbone's width 32"):
        build("lta-thinker", tiny(), LTAThinkerConfig(heads=5))
