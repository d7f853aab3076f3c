"""SoftCoT against its formula restated plainly, and what the assistant reads, word for word, family by family."""

from dataclasses import replace

import pytest
import torch
from families import NAMES, family, save
from safetensors.torch import load_file
from softcot_plain import plain_likelihood, plain_thoughts, same
from transformers import LlamaConfig, LlamaForCausalLM, Qwen3Config

from workbench.__main__ import main
from workbench.analysis.diagnostics.thoughts import probe
from workbench.backbone import SLOT, Backbone, pad
from workbench.evidence.changes import change_named
from workbench.evidence.collect import collect
from workbench.methods import Thoughts, build
from workbench.methods.assistant import read
from workbench.methods.softcot import SoftCoTConfig, placeholder_id
from workbench.methods.softcot_pp import SoftCoTPPConfig
from workbench.runs import load_method, save_weights
from workbench.tasks import Example, Task, load_task

CHATS = ("qwen3", "qwen2.5", "llama-3.1", "llama-3.2")
EXAMPLE = Example("a", "Tom has 12 apples and buys 5 more.\n\nHow many?", ("12 + 5 = 17 apples.", "So 17."), "17")
PENS = Task("pens", lambda split: [EXAMPLE], lambda text: text, lambda a, b: a == b, instruction="Solve the problem.")


@pytest.fixture
def task():
    return load_task("arith-shift")


def made(backbone, task, count=5, **options):
    """A SoftCoT and prompts, of which one question is three times as long as the others."""
    method = build("softcot", backbone, SoftCoTConfig(**options), seed=2)
    prompts = [method.render(example, task) for example in task.examples("train", count)]
    long = replace(prompts[2].example, question=" ".join([prompts[2].example.question] * 3))
    prompts[2] = replace(prompts[2], example=long)
    return method, prompts


# ------------------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("own", [True, False], ids=["an assistant of its own", "the backbone itself"])
@pytest.mark.parametrize("name", ["qwen3", "gpt2"])
def test_loss_and_gradients_equal_the_formulas(tiny, task, assistant, name, own):
    """The plain formulas read prompts in one pass: what is run before and without a gradient here changes nothing."""
    method, prompts = made(tiny(name), task, thoughts=3, assistant=assistant if own else "")
    start = method.reader.table[method.placeholder]
    assert method.reader.width == (16 if own else 32)
    thoughts = [plain_thoughts(method, p, start) for p in prompts]
    torch.testing.assert_close(method.think(prompts).vectors[:, 0], torch.stack(thoughts), atol=2e-5, rtol=1e-4)
    each = [plain_likelihood(method, p, t) for p, t in zip(prompts, thoughts, strict=True)]
    same(method.loss(prompts).total, torch.stack(each).mean(), list(method.projection.parameters()))


def test_likelihood_over_all_tokens_is_the_published_mean(tiny, task):
    method, prompts = made(tiny(), task, likelihood_mean="token")
    start, counts = method.reader.table[method.placeholder], [len(p.target) for p in prompts]
    each = [plain_likelihood(method, p, plain_thoughts(method, p, start)) for p in prompts]
    total = torch.stack([n * nll for n, nll in zip(counts, each, strict=True)]).sum() / sum(counts)
    assert len(set(counts)) > 1
    same(method.loss(prompts).total, total, list(method.projection.parameters()))


def test_only_the_projection_learns(tiny, task, assistant):
    method, prompts = made(tiny(), task, assistant=assistant)
    method.loss(prompts).total.backward()
    reached = {name for name, p in method.named_parameters() if p.grad is not None}
    assert reached == {"projection.weight", "projection.bias"}
    assert method.projection.weight.grad.abs().sum() > 0
    assert method.projection.bias.grad.abs().sum() > 0


def test_placeholders_are_a_token_and_thoughts_its_states(tiny, task):
    """The states that transformers gives at the token's own places, not one place before."""
    method, prompts = made(tiny("llama", chat=True), task, thoughts=3, placeholder="<bot>")
    tokenizer, reader = method.reader.tokenizer, method.reader
    text = reader.chat(prompts[0].example.question) + method.opening + "<bot>" * 3
    ids = torch.tensor(tokenizer(text, add_special_tokens=False)["input_ids"])
    assert ids[-3:].tolist() == [tokenizer.convert_tokens_to_ids("<bot>")] * 3
    states = reader.model(ids[None], output_hidden_states=True).hidden_states[-1][0, -3:]
    torch.testing.assert_close(method.think(prompts[:1]).vectors[0, 0], method.projection(states), atol=1e-5, rtol=1e-4)


def test_padding_of_what_is_read_changes_nothing(tiny):
    backbone = tiny()
    rows = [torch.tensor([7, 8, 9]), torch.tensor([9, 8, 7, 6, 5, 4, 10])]
    slots = torch.randn(2, 3, backbone.width, generator=torch.Generator().manual_seed(0))
    text, behind = read(backbone, *pad(rows, "left"), slots)
    assert (text.shape, behind.shape) == ((2, 7, 32), (2, 2, 3, 32))
    for k, row in enumerate(rows):
        wide = torch.cat([torch.zeros(4, dtype=torch.long), row])[None]
        real = torch.arange(len(row) + 4)[None] >= 4
        one, at_slots = read(backbone, wide, real, slots)
        torch.testing.assert_close(text[k, -len(row) :], one[0, 4:], atol=1e-5, rtol=1e-4)
        torch.testing.assert_close(behind[k], at_slots[0], atol=1e-5, rtol=1e-4)


def test_loss_is_the_same_however_a_batch_is_cut(tiny, task):
    method, prompts = made(tiny(), task, count=6)
    whole = method.loss(prompts).total
    pieces = [
        (2, method.loss(prompts[:2]).total),
        (3, method.loss(prompts[2:5]).total),
        (1, method.loss(prompts[5:]).total),
    ]
    torch.testing.assert_close(whole, torch.stack([n * loss for n, loss in pieces]).sum() / 6, atol=1e-5, rtol=1e-5)


# ------------------------------------------------------------------------------------------------ what is read, learned


@pytest.mark.parametrize("name", NAMES)
def test_an_assistant_reads_its_own_chat_up_to_the_placeholders(tmp_path, name):
    """Ids equal those of the conversation by the assistant's template, in which it has begun to answer."""
    folder = save(family(name), tmp_path)
    method = build("softcot", family("qwen3"), SoftCoTConfig(thoughts=5, assistant=folder))
    prompt, tokenizer = method.render(EXAMPLE, PENS), method.reader.tokenizer
    ordinary = tokenizer.convert_ids_to_tokens(int(method.reader.ids(" the")[0]))
    usual = {"qwen3": "<|endoftext|>", "qwen2.5": "<|endoftext|>", "plain": ordinary, "sentences": ordinary}
    token = usual.get(name, "<|end_of_text|>")
    assert tokenizer.convert_ids_to_tokens(method.placeholder) == token
    opening = "5 tokens that help with this problem: " if tokenizer.chat_template else ""
    if name in CHATS:
        turns = [
            {"role": "user", "content": prompt.example.question},
            {"role": "assistant", "content": opening + token * 5},
        ]
        written = tokenizer.apply_chat_template(turns, tokenize=False, enable_thinking=False, date_string="26 Jul 2024")
        text = written[: written.rindex(token) + len(token)]
        assert "help: quantities" in text
        assert f"Problem: {EXAMPLE.question}" in text
    else:
        text = method.reader.chat(prompt.example.question) + opening
        text += tokenizer.eos_token * 5  # of which it is known that it is not merged with what stands beside it
    whole = tokenizer(text, add_special_tokens=False)["input_ids"]
    assert [*whole[:-5], *[method.placeholder] * 5] == [*method._row(prompt).tolist(), *[method.placeholder] * 5]


def test_a_plain_model_is_told_nothing(tiny):
    method = build("softcot", tiny())
    assert (method.instruction, method.opening) == ("", "")
    assert method.render(EXAMPLE, PENS).example == EXAMPLE


def test_instruction_and_opening_are_options_and_know_the_number(tiny):
    options = {"instruction": "Write {N} hints for this: ", "opening": "{N} hints: "}
    method = build("softcot", tiny(chat=True), SoftCoTConfig(thoughts=7, **options))
    assert method.render(EXAMPLE, PENS).example.question == f"Write 7 hints for this: {EXAMPLE.question}"
    assert method.opening == "7 hints: "
    assert build("softcot", tiny(chat=True), SoftCoTConfig(instruction="", opening="")).opening == ""


def test_a_prompt_pack_has_its_own_instruction(tiny, tmp_path):
    pack = tmp_path / "pack.yaml"
    pack.write_text("tasks:\n  gsm8k:\n    before: 'Q: '\n    generator: 'Give {N} words. '\n")
    example = Example("g", "What is 2 + 2?", ("2 + 2 = 4",), "4")
    method = build("softcot", tiny(chat=True), SoftCoTConfig(thoughts=6))
    prompt = method.render(example, load_task("gsm8k", prompts=str(pack)))
    assert prompt.example.question == "Give 6 words. What is 2 + 2?."
    assert prompt.example.id == "g"


@pytest.mark.parametrize("name", CHATS)
@pytest.mark.parametrize("tail", ["", "\n\nIs it yes or no?"])
def test_thoughts_stand_between_the_marks_whatever_follows(name, tail):
    backbone = family(name)
    before, after = backbone.around(f"Problem: {EXAMPLE.question}\n\nHere are prompts: {SLOT}{tail}")
    begin, end = (backbone.tokenizer.convert_tokens_to_ids(mark) for mark in backbone.marks)
    assert (int(before[-1]), int(after[0])) == (begin, end)
    assert before.tolist().count(begin) == 1
    assert backbone.tokenizer.decode(after[1:]).startswith(tail + ("<|eot_id|>" if "llama" in name else "<|im_end|>"))


@pytest.mark.parametrize("name", NAMES)
def test_the_published_target_has_the_header_and_on_llama_not_its_end(name):
    backbone = family(name)
    prompt = build("softcot", backbone).render(EXAMPLE, PENS)
    method = build("softcot", backbone, SoftCoTConfig.reference(2))
    learned = method._learned(prompt)
    cut = not name.startswith("qwen")
    row = torch.cat([prompt.after, prompt.target])
    assert torch.equal(torch.cat([learned.after, learned.target]), row[: len(row) - cut])
    assert (learned.target[-1] == backbone.turn_end) == (not cut)
    assert prompt.target[-1] == backbone.turn_end
    if name in CHATS:  # from behind the user's turn on
        assert learned.after[-1] == backbone.turn_end
        assert (
            backbone.tokenizer.decode(learned.target)
            .lstrip()
            .startswith(("<|im_start|>assistant", "<|start_header_id|>"))
        )
    else:
        assert torch.equal(learned.after, prompt.after)
    assert build("softcot", backbone)._learned(prompt) == prompt


def test_the_published_loss_learns_the_published_target(task):
    backbone = family("llama-3.1")
    config = replace(SoftCoTConfig.reference(2), projection_dtype="float32", likelihood_mean="example")
    method = build("softcot", backbone, config)
    prompt = method.render(EXAMPLE, PENS)
    thoughts = plain_thoughts(method, prompt, backbone.table[method.placeholder])
    header, end = prompt.after.tolist().index(backbone.turn_end) + 1, prompt.target[:-1]
    learned = replace(prompt, after=prompt.after[:header], target=torch.cat([prompt.after[header:], end]))
    same(method.loss([prompt]).total, plain_likelihood(method, learned, thoughts), list(method.projection.parameters()))


# -------------------------------------------------------------------------------------------------- numbers of thoughts


def test_fewer_thoughts_are_the_first_ones(tiny, task):
    """Trained with eight and answered with three, as if there had never been more."""
    eight, prompts = made(tiny(), task, thoughts=8)
    three, _ = made(tiny(), task, thoughts=3)
    assert torch.equal(eight.projection.weight, three.projection.weight)
    vectors = eight.think(prompts).vectors
    torch.testing.assert_close(vectors[:, :, :3], three.think(prompts).vectors, atol=1e-5, rtol=1e-4)
    (cut,) = change_named("truncated:3")([eight.think(prompts)])
    assert torch.equal(cut.vectors, vectors[:, :, :3])


def test_ablations_change_the_vectors_and_nothing_else(tiny, task):
    """Zero, mean, another question's, and placeholder embeddings in place of thoughts: one code path."""
    method, _ = made(tiny(), task, thoughts=3)
    examples, seen = task.examples("dev", 6), {}
    kept = method.answer

    def answer(prompts, thoughts, *rest, **named):
        seen[len(seen)] = (prompts, thoughts.vectors)
        return kept(prompts, thoughts, *rest, **named)

    method.answer = answer
    word = method.backbone.table[method.placeholder]

    def placeholders(thoughts):
        return [Thoughts(word.expand_as(t.vectors).clone(), t.mask) for t in thoughts]

    for change in (None, "zeroed", "averaged", "shuffled", placeholders):
        collect(method, task, examples, change=change, batch_size=6)
    (prompts, own), *others = seen.values()
    assert all([p.example.id for p in given] == [p.example.id for p in prompts] for given, _ in others)
    zeroed, averaged, shuffled, words = (vectors for _, vectors in others)
    assert not zeroed.any()
    torch.testing.assert_close(averaged, own.mean(0, keepdim=True).expand_as(own), atol=1e-5, rtol=1e-4)
    assert sorted(shuffled.sum((1, 2, 3)).tolist()) == sorted(own.sum((1, 2, 3)).tolist())
    assert not (shuffled == own).all((1, 2, 3)).any()
    assert (words == word).all()


# ---------------------------------------------------------------------------------------------------------------- noise


def test_noise_makes_paths_of_one_thought(tiny, task):
    """SoftCoT-P: each path is the thought plus noise of the asked size, whoever else is in the batch."""
    method, prompts = made(tiny(), task, thoughts=16, noise=0.5)
    clean, _ = made(tiny(), task, thoughts=16)
    vectors, plain = method.think(prompts, paths=3).vectors, clean.think(prompts, paths=3).vectors
    assert torch.equal(plain[:, 0], plain[:, 2])
    size = (vectors - plain).square().mean((2, 3)).sqrt() / plain.square().mean((2, 3)).sqrt()
    torch.testing.assert_close(size, torch.full_like(size, 0.5), atol=0.05, rtol=0)
    noise = (vectors - plain).flatten(0, 1).flatten(1)
    cosines = torch.corrcoef(noise) - torch.eye(len(noise))
    assert cosines.abs().max() < 0.2
    torch.testing.assert_close(method.think(prompts[3:4]).vectors, vectors[3:4, :1], atol=1e-5, rtol=1e-4)
    assert torch.equal(method.loss(prompts).total, clean.loss(prompts).total)


# ------------------------------------------------------------------------------------------------- precision and counts


@pytest.mark.parametrize(("width", "lost"), [(2048, 0.646), (1536, 0.693), (1024, 0.750)])
def test_bfloat16_loses_most_of_twenty_small_steps(tiny, task, tmp_path, width, lost):
    """AdamW at the published 2e-5: the shares of weights that never move, at the published widths of assistants."""
    shape = {"hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 16}
    backbone = tiny()
    with torch.random.fork_rng():
        torch.manual_seed(0)
        model = LlamaForCausalLM(LlamaConfig(**shape, head_dim=2, vocab_size=len(backbone.table)))
    assistant = Backbone(model, backbone.tokenizer, "wide")
    assistant.model.save_pretrained(tmp_path)
    assistant.tokenizer.save_pretrained(tmp_path)
    still = {}
    for dtype in ("float32", "bfloat16"):
        config = SoftCoTConfig(thoughts=2, assistant=str(tmp_path), projection_dtype=dtype)
        method = build("softcot", backbone, config)
        prompts = [method.render(example, task) for example in task.examples("train", 2)]
        before = method.projection.weight.detach().clone()
        optimizer = torch.optim.AdamW(method.projection.parameters(), lr=2e-5, weight_decay=0)
        for _ in range(20):
            optimizer.zero_grad()
            method.loss(prompts).total.backward()
            optimizer.step()
        still[dtype] = (method.projection.weight == before).float().mean().item()
    assert still["float32"] < 0.01
    assert still["bfloat16"] == pytest.approx(lost, abs=0.02)


@pytest.mark.parametrize(
    ("narrow", "wide", "count"),
    [(2048, 4096, 8_392_704), (1536, 3584, 5_508_608), (1024, 4096, 4_198_400)],
    ids=["llama 1b to 8b", "qwen2.5 1.5b to 7b", "qwen3 0.6b to 8b"],
)
def test_published_parameter_counts(tiny, tmp_path, narrow, wide, count):
    """From shapes alone: the assistant is not loaded either."""
    for name, width in (("assistant", narrow), ("backbone", wide)):
        shape = {"hidden_size": width, "intermediate_size": 8, "num_hidden_layers": 1, "vocab_size": 200}
        Qwen3Config(**shape, num_attention_heads=2, num_key_value_heads=2).save_pretrained(tmp_path / name)
        tiny().tokenizer.save_pretrained(tmp_path / name)
    backbone = Backbone.load(str(tmp_path / "backbone"), weights=False)
    assistant = str(tmp_path / "assistant")
    method = build("softcot", backbone, SoftCoTConfig(assistant=assistant))
    assert method.reader.table.is_meta
    assert method.trainable_parameters == count == wide * (narrow + 1)
    several = build("softcot-pp", backbone, SoftCoTPPConfig(assistant=assistant, paths=10))
    assert several.trainable_parameters == count + 10 * narrow


# ----------------------------------------------------------------------------------------------------- saving, mistakes


def test_a_saved_run_holds_the_projection_alone(tiny, task, assistant, tmp_path):
    method, prompts = made(tiny(), task, assistant=assistant)
    assert set(load_file(save_weights(method, tmp_path))) == {"projection.weight", "projection.bias"}
    assert torch.equal(load_method(tmp_path).think(prompts).vectors, method.think(prompts).vectors)


def test_mistakes_are_one_sentence(tiny):
    with pytest.raises(
        ValueError, match=r"placeholder 'tok tok' is no token of .*; give one, such as '<eos>', or leave"
    ):
        build("softcot", tiny(), SoftCoTConfig(placeholder="tok tok"))
    with pytest.raises(ValueError, match="no backbone at 'nobody': give a shipped name"):
        build("softcot", tiny(), SoftCoTConfig(assistant="nobody"))
    with pytest.raises(ValueError, match=r"noise is -1\.0; give a number from 0"):
        SoftCoTConfig(noise=-1.0)
    with pytest.raises(ValueError, match="thoughts is 0; give a number from 1"):
        SoftCoTConfig(thoughts=0)


def test_the_usual_placeholder_is_the_unknown_word_or_an_ordinary_one(tiny):
    tokenizer = tiny().tokenizer
    assert placeholder_id(tiny()) == tokenizer.unk_token_id
    assert placeholder_id(tiny(), "<eot>") == tokenizer.convert_tokens_to_ids("<eot>")
    backbone = tiny()
    for ends_too in (None, backbone.tokenizer.eos_token):  # SmolLM2 calls its end of text the unknown word
        backbone.tokenizer.unk_token = ends_too
        assert placeholder_id(backbone) == int(backbone.plain_ids(" the")[0])
    backbone = family("plain")
    backbone.tokenizer.add_special_tokens({"unk_token": "<|endoftext|>"})
    assert placeholder_id(backbone) == int(backbone.plain_ids(" the")[0])  # no Qwen: what is published is not meant


def test_a_placeholder_that_ends_texts_would_lose_the_question(task):
    """A model that reads nothing behind its end of text says the same of all questions there; by default it does not.

    The end of text is made as large as real models have it, where it drowns what attention brings.
    """
    backbone = family("plain")
    backbone.tokenizer.unk_token = backbone.tokenizer.eos_token
    with torch.no_grad():
        backbone.table[backbone.tokenizer.eos_token_id] *= 100
    spread = {}
    for name, token in (("default", ""), ("end", backbone.tokenizer.eos_token)):
        method, prompts = made(backbone, task, thoughts=2, placeholder=token)
        slots = backbone.embed(torch.tensor([method.placeholder])).expand(1, 2, -1)
        _, states = read(backbone, *pad([method._row(p) for p in prompts], "left"), slots)
        spread[name] = probe(states[:, 0].numpy())["relative_spread"]
    assert spread["end"] < 2e-3
    assert spread["default"] > 30 * spread["end"]


def test_the_command_line_trains_and_answers(tiny_folder, assistant, tmp_path, capsys):
    what = ["--method", "softcot", "--backbone", str(tiny_folder()), "--options.assistant", assistant]
    short = ["--training.examples", "16", "--training.epochs", "1", "--training.probe_examples", "4"]
    run, store = tmp_path / "run", tmp_path / "test.nc"
    assert main(["train", *what, "--options.instruction", "Hint: ", *short, "--out", str(run)]) == 0
    cap = ["--count", "4", "--decoding.max_new_tokens", "4", "--out", str(store)]
    assert main(["collect", "--run", str(run), *cap]) == 0
    said = capsys.readouterr().out
    assert "training softcot on" in said
    assert f": {16 * 32 + 32:,} trainable of" in said
    assert f"{store}: 4 questions" in said
