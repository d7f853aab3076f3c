"""Model families: special marks, thinking off, a fixed date, one prompt for training and test, where answers end."""

from datetime import datetime

import pytest
import torch
from families import FAMILIES, NAMES, TODAY, Name, family, save
from torch.nn import functional as F
from transformers.utils import chat_template_utils

from workbench.backbone import SLOT, Backbone, Decoding, decoding
from workbench.backbone import model as backbone_model
from workbench.evidence.collect import collect
from workbench.methods import Thoughts, build
from workbench.tasks import Example, Task, prompts

EXAMPLES = [
    Example("a", "Tom has 12 apples and buys 5 more.\n\nHow many?", ("12 + 5 = 17 apples.", "So 17."), "17"),
    Example("b", "Ann had 30 pens.", (), "30"),
    Example("c", " Tom has 3 pens; he gave 1 to Ann (his friend). How many pens does he have? ", ("3 - 1 = 2",), "2"),
]
TASK = Task(
    "pens", lambda split: EXAMPLES, lambda text: text, lambda a, b: a == b,
    instruction="Solve the problem step by step.", answer_tokens=7,
)  # fmt: skip
MARKS = {
    "qwen3": ("<think>", "</think>"),
    "qwen2.5": ("<|box_start|>", "<|box_end|>"),
    "llama-3.1": ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    "llama-3.2": ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
}
CHATS = tuple(MARKS)
HOLE = {
    "llama-3.1": "<|eom_id|>",
    "llama-3.2": "<|eom_id|>",
    "plain": "</s>",
    "sentences": "</s>",
}  # else <|endoftext|>


def ids_of(backbone: Backbone, text: str) -> list[int]:
    return backbone.tokenizer(text, add_special_tokens=False)["input_ids"]


def written(backbone: Backbone, name: Name, example: Example, hole: str, *turns: str) -> str:
    """The conversation by the tokenizer's own template, with `hole` where the thoughts are, marks around it."""
    begin, end = MARKS.get(name, ("", ""))
    message = f"{TASK.instruction}\n{example.question}{begin}{hole}{end}"
    if not backbone.tokenizer.chat_template:
        return f"<s>{message}\n{''.join(turns)}"
    text = backbone.tokenizer.apply_chat_template(
        [{"role": "user", "content": message}], tokenize=False, add_generation_prompt=True, enable_thinking=False,
        date_string="26 Jul 2024",
    )  # fmt: skip
    return text + "\n" * (name == "sentences") + "".join(turns)  # whose template has no header for replies


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example.id)
def test_pieces_are_the_ids_of_the_whole_text(name, example):
    """Cut at the slot, the steps and the answer, the ids are those of the rendered conversation in one piece."""
    backbone = family(name)
    prompt, hole = build("cot", backbone).render(example, TASK), HOLE.get(name, "<|endoftext|>")
    steps = "".join(f"{step}\n" for step in example.steps)
    end = backbone.tokenizer.convert_ids_to_tokens(backbone.turn_end)
    whole = ids_of(backbone, written(backbone, name, example, hole, steps, f"#### {example.answer}", end))
    parts = [prompt.before, torch.tensor(ids_of(backbone, hole)), prompt.after, prompt.target]
    assert torch.cat(parts).tolist() == whole


@pytest.mark.parametrize("name", CHATS)
def test_marks_and_the_turn_around_the_thoughts(name):
    backbone = family(name)
    prompt = build("cot", backbone).render(EXAMPLES[0], TASK)
    before, after, target = (backbone.tokenizer.decode(ids) for ids in (prompt.before, prompt.after, prompt.target))
    begin, end = MARKS[name]
    turn = "<|eot_id|>" if "llama" in name else "<|im_end|>"
    assert before.endswith(f"How many?{begin}")
    assert after.startswith(end + turn)
    assert target.endswith(f"#### 17{turn}")
    assert target.count(turn) == 1
    replies = {
        "qwen3": "\n<|im_start|>assistant\n<think>\n\n</think>\n\n",  # thinking switched off by an empty block
        "qwen2.5": "\n<|im_start|>assistant\n",
    }
    assert after == end + turn + replies.get(name, "<|start_header_id|>assistant<|end_header_id|>\n\n")
    starts = {"qwen3": "<|im_start|>user\nSolve", "qwen2.5": "<|im_start|>system\nYou are"}
    assert before.startswith(starts.get(name, "<|begin_of_text|><|start_header_id|>system"))
    assert before.count("<|begin_of_text|>") == ("llama" in name)


def test_thinking_is_on_without_being_switched_off():
    """The test above can fail."""
    tokenizer = family("qwen3").tokenizer
    text = tokenizer.apply_chat_template([{"role": "user", "content": "?"}], tokenize=False, add_generation_prompt=True)
    assert "<think>" not in text


@pytest.mark.parametrize("name", NAMES)
def test_training_and_test_read_the_same_row(name, monkeypatch):
    """What stands before the target in training is, vector for vector, what answers are written behind."""
    backbone = family(name)
    backbone.padded = True  # whole rows; what the other ways read is in test_prefixes
    method = build("soft-prompt", backbone)
    seen: dict[str, list[torch.Tensor]] = {"run": [], "generate": []}
    for act, rows in seen.items():
        call = getattr(Backbone, act)

        def watched(self, vectors, *rest, call=call, rows=rows, **named):
            rows.append(vectors[0].detach())
            return call(self, vectors, *rest, **named)

        monkeypatch.setattr(Backbone, act, watched)
    for split in ("train", "test"):
        for example in TASK.examples(split):
            prompt = method.render(example, TASK)
            for rows in seen.values():
                rows.clear()
            method.likelihood([prompt], method.think([prompt]))
            trained = torch.cat(seen["run"])[: len(prompt.before) + 4 + len(prompt.after)]
            method.answer([prompt], method.think([prompt]), Decoding(1))
            torch.testing.assert_close(trained, seen["generate"][0], rtol=0, atol=0)


@pytest.mark.parametrize("name", NAMES)
def test_thoughts_that_are_words_answer_as_the_text_does(name):
    """With padding and masked thoughts; the text is rendered and cut by the tokenizer, transformers answers it."""
    backbone = family(name)
    method = build("cot", backbone)
    words = [ids_of(backbone, text)[:4] for text in (" apples pens friends", "<")]
    words = [words[0], words[1][:1], []]
    given = [method.render(example, TASK) for example in EXAMPLES]
    mask = torch.zeros(3, 1, 4, dtype=torch.bool)
    ids = torch.zeros(3, 1, 4, dtype=torch.long)
    for row, found in enumerate(words):
        mask[row, 0, 4 - len(found) :], ids[row, 0, 4 - len(found) :] = True, torch.tensor(found, dtype=torch.long)
    thoughts = Thoughts(backbone.embed(ids), mask)
    answers = method.answer(given, thoughts, Decoding(12))
    losses = method.likelihood(given, thoughts)
    hole = HOLE.get(name, "<|endoftext|>")
    for row, prompt in enumerate(given):
        whole = ids_of(backbone, written(backbone, name, EXAMPLES[row], hole))
        place = len(prompt.before)
        assert whole[place] == ids_of(backbone, hole)[0]
        text = torch.tensor([[*whole[:place], *words[row], *whole[place + 1 :]]])
        out = backbone.model.generate(
            text, attention_mask=torch.ones_like(text), max_new_tokens=12, do_sample=False, repetition_penalty=1.0,
            top_k=None, top_p=None, temperature=None, eos_token_id=sorted(backbone.stops),
        )[0, text.shape[1] :].tolist()  # fmt: skip
        out = out[: next((k for k, token in enumerate(out) if token in backbone.stops), len(out))]
        assert list(answers[row][0][0].tokens) == out
        logits = backbone.model(torch.cat([text[0], prompt.target])[None]).logits[0, -len(prompt.target) - 1 : -1]
        torch.testing.assert_close(losses[row], F.cross_entropy(logits, prompt.target), atol=1e-5, rtol=1e-5)


class Tomorrow(datetime):
    @classmethod
    def now(cls, tz=None):
        return cls(2031, 5, 6, tzinfo=tz)


@pytest.mark.parametrize("template", ["llama-3.2", "own clock", "inner macro"])
def test_the_date_is_never_todays(template, monkeypatch):
    backbone = family("llama-3.2")
    if template != "llama-3.2":  # templates that ask the clock whatever date_string says
        clock = "Now: {{ strftime_now('%A %d %B %Y, %Y-%m-%d %y') }}. "
        if template == "inner macro":
            clock = "{%- macro now() %}" + clock + "{%- endmacro %}\n{{ now() }}"
        backbone.tokenizer.chat_template = clock + FAMILIES["llama-3.2"].template
    message = {"role": "user", "content": f"Tom{SLOT}"}
    first = backbone.around(message["content"])
    monkeypatch.setattr(chat_template_utils, "datetime", Tomorrow)
    assert "2031" in backbone.tokenizer.apply_chat_template([message], tokenize=False)  # the clock has moved
    later = backbone.around(message["content"])
    assert [ids.tolist() for ids in later] == [ids.tolist() for ids in first]
    text = backbone.tokenizer.decode(first[0])
    assert "Today Date: 26 Jul 2024\n" in text
    if template != "llama-3.2":
        assert "Now: Friday 26 July 2024, 2024-07-26 24." in text


@pytest.mark.parametrize("template", [FAMILIES["qwen2.5"].template, "\n  " + FAMILIES["qwen2.5"].template, "  hello "])
def test_pinning_the_clock_changes_nothing_else(template):
    backbone = family("qwen2.5")
    backbone.tokenizer.chat_template = template
    turns = [{"role": "user", "content": "Tom"}]
    plain = backbone.tokenizer.apply_chat_template(turns, tokenize=False, add_generation_prompt=True)
    assert backbone.chat("Tom") == plain


def test_todays_template_asks_the_clock():
    assert "strftime_now" in TODAY
    assert "strftime_now" not in FAMILIES["llama-3.1"].template


@pytest.mark.parametrize("name", NAMES)
def test_stops_are_the_turn_the_text_and_the_config(name):
    backbone, made = family(name), FAMILIES[name]
    expected = {*made.stops, made.eos, "<|eot_id|>" if "llama" in name else "<|im_end|>" if name in CHATS else "</s>"}
    assert {backbone.tokenizer.convert_ids_to_tokens(i) for i in backbone.stops} == expected


def test_a_base_models_tokenizer_does_not_say_where_turns_end():
    """Base models come with a chat template and the end of text for eos: the template knows."""
    backbone = family("qwen3")
    backbone.tokenizer.eos_token = "<|endoftext|>"
    backbone.model.generation_config.eos_token_id = None
    prompt = build("cot", backbone).render(EXAMPLES[0], TASK)
    assert backbone.tokenizer.decode(prompt.target).endswith("#### 17<|im_end|>")
    assert {backbone.tokenizer.convert_ids_to_tokens(i) for i in backbone.stops} == {"<|im_end|>", "<|endoftext|>"}


def test_a_template_that_ends_no_turn_leaves_the_end_of_text():
    backbone = family("qwen3")
    backbone.tokenizer.chat_template = "{% for turn in messages %}{{ turn.role }}: {{ turn.content }}\n{% endfor %}"
    assert backbone.turn_end == backbone.tokenizer.eos_token_id
    empty = family("plain")
    empty.tokenizer.eos_token = None
    with pytest.raises(ValueError, match=r"'plain' has no token that ends an answer; set its eos_token$"):
        _ = empty.turn_end


@pytest.mark.parametrize(
    ("name", "pad"),
    [
        ("qwen3", "<|endoftext|>"),
        ("llama-3.1", "<|finetune_right_pad_id|>"),
        ("llama-3.2", "<|eot_id|>"),
        ("plain", "</s>"),
    ],
)
def test_the_padding_token_is_explicit(name, pad, tmp_path):
    backbone = family(name)
    assert backbone.tokenizer.pad_token == pad
    assert backbone.model.generation_config.pad_token_id == backbone.tokenizer.convert_tokens_to_ids(pad)
    loaded = Backbone.load(save(backbone, tmp_path))
    assert (loaded.tokenizer.pad_token, loaded.family, loaded.stops) == (pad, backbone.family, backbone.stops)


def test_families_go_by_one_set_of_names():
    assert set(backbone_model.FAMILIES) == set(decoding.PUBLISHED) == set(prompts.FAMILIES)
    found = {name: family(name).family for name in NAMES}
    llamas = {"llama-3.1": "llama", "llama-3.2": "llama"}
    assert found == {"qwen3": "qwen3", "qwen2.5": "qwen2.5", **llamas, "plain": "other", "sentences": "other"}
    assert Backbone.load("nano").family == "other"  # a Qwen3 by its layers, without Qwen's chats


@pytest.mark.parametrize(
    ("template", "complaint"),
    [
        (
            "{{ raise_exception('roles must be bot and human.') }}",
            r"cannot write a plain message \(roles must be bot and",
        ),
        ("{% for %}", r"cannot write a plain message \(.*\); set another one on its tokenizer"),
        ("{{ messages[0].content }}{{ messages[0].content }}", r"writes a message 2 times, it must do so once; set"),
        ("{{ messages[0].content | length }}", r"writes a message 0 times"),
    ],
)
def test_a_template_that_cannot_be_used_is_one_sentence(template, complaint):
    backbone = family("qwen3")
    backbone.tokenizer.chat_template = template
    with pytest.raises(ValueError, match=rf"^the chat template of backbone 'qwen3' {complaint}"):
        backbone.around(f"Tom{SLOT}")


def test_a_template_may_know_neither_thinking_nor_dates_nor_a_system():
    backbone = family("qwen2.5")
    backbone.tokenizer.chat_template = (
        "{% if messages[0].role == 'system' %}{{ raise_exception('no system turn') }}{% endif %}"
        "{% for turn in messages %}<|im_start|>{{ turn.content }}<|im_end|>{% endfor %}"
    )
    before, after = backbone.around(f"Tom{SLOT}")
    assert backbone.tokenizer.decode(torch.cat([before, after])) == "<|im_start|>Tom<|box_start|><|box_end|><|im_end|>"


@pytest.mark.parametrize("name", ["qwen3", "llama-3.1"])
def test_the_length_is_the_tasks_own_and_stored(name):
    method = build("cot", family(name))
    found = collect(method, TASK, EXAMPLES)
    assert '"max_new_tokens": 7' in found.attrs["decoding"]
    assert int(found["length"].max()) == 7
    assert (found.attrs["batch_size"], found.attrs["prompts"]) == (128, "")
    short = collect(method, TASK, EXAMPLES, decoding=Decoding(3))
    assert int(short["length"].max()) == 3


def test_marks_in_a_question_do_not_move_the_slot():
    backbone = family("qwen3")
    method = build("cot", backbone)
    odd, plain = (method.render(Example("x", text, (), "1"), TASK) for text in ("a<think>b</think>c", "abc"))
    assert backbone.tokenizer.decode(odd.before).endswith("a<think>b</think>c<think>")
    assert odd.after.tolist() == plain.after.tolist()
