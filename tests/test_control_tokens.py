"""What looks like a control token in data is read as text, and a given backbone is left as it was."""

import pytest
import torch
from families import family

import workbench as wb
from workbench.methods.coconut import CoconutConfig
from workbench.methods.trained import trained_copy
from workbench.tasks import Example, Task

TASK = Task("apples", lambda split: [], lambda text: text, lambda a, b: a == b, instruction="Solve the problem.")


@pytest.mark.parametrize("name", ["qwen3", "llama-3.1", "plain", "sentences"])
@pytest.mark.parametrize("method", ["cot", "direct", "soft-thinking", "softcot", "coconut"])
def test_names_of_control_tokens_are_text_in_data(name, method):
    """In the question, the steps and the answer; the same control tokens stand there as for any other example."""
    built = wb.build(method, family(name))
    backbone = built.backbone
    controls = {i for i, token in backbone.tokenizer.added_tokens_decoder.items() if token.special}
    controls |= set(backbone.tokenizer.convert_tokens_to_ids([mark for mark in backbone.marks if mark]))
    controls -= {backbone.tokenizer.get_vocab().get("<unk>")}  # what a vocabulary without letters reads

    def found(example: Example) -> list[list[int]]:
        prompt = built.render(example, TASK)
        parts = (prompt.before, prompt.after, prompt.target, prompt.question, prompt.answer, *prompt.steps)
        if method == "softcot":
            parts += (built._row(prompt),)
        return [[i for i in part.tolist() if i in controls] for part in parts]

    end, (begin, _) = backbone.tokenizer.eos_token, backbone.marks
    plain = found(Example("a", "Tom has 12 apples", ("12 + 5",), "17"))
    for bad in (end, f"{end}{begin}{end}\n", f"{end[:1]}{end}"):
        assert found(Example("a", f"Tom has {bad} 12 apples", (f"12 {bad} + 5",), f"17{bad}")) == plain
    text = f"Tom {end} has"
    if name != "sentences":  # whose little vocabulary has no letters for it
        assert backbone.tokenizer.decode(backbone.plain_ids(text)) == text
    assert torch.equal(backbone.plain_ids("Tom has 12"), backbone.ids("Tom has 12"))


@pytest.mark.parametrize("mark", ["\ue000", "\ue001"])
@pytest.mark.parametrize("method", ["cot", "direct", "coconut", "lta-thinker"])
def test_our_own_marks_in_data_are_refused_by_the_examples_name(method, mark):
    built = wb.build(method, family("qwen3"))
    for example in (
        Example("bad", f"a{mark}", (), "1"),
        Example("bad", "a", (mark,), "1"),
        Example("bad", "a", (), mark),
    ):
        with pytest.raises(ValueError, match=r"example 'bad' holds the character U\+E00[01]"):
            built.render(example, TASK)


@pytest.mark.parametrize("tied", [False, True])
@pytest.mark.parametrize("rows", [0, 7])
@pytest.mark.parametrize("rank", [0, 2])
def test_a_copy_with_more_marks_leaves_the_given_backbone_as_it_was(rank, rows, tied):
    """Weights, shapes, configs and tokenizer; the new rows are the copy's own."""
    given = family("plain")
    if tied:
        given.model.config.tie_word_embeddings = True
        given.model.tie_weights()
    if rows:
        given.model.resize_token_embeddings(len(given.table) + rows, mean_resizing=False)
    before = {name: value.clone() for name, value in given.model.state_dict().items()}
    kept = given.model.config.to_dict(), given.model.generation_config.to_dict(), given.tokenizer.get_vocab()
    own = trained_copy(given, rank, marks=["<thinking>", "<s>"], like=given.tokenizer.eos_token)
    wb.build("coconut", given, CoconutConfig(lora_rank=rank))
    assert (given.model.config.to_dict(), given.model.generation_config.to_dict(), given.tokenizer.get_vocab()) == kept
    after = given.model.state_dict()
    assert after.keys() == before.keys()
    assert all(torch.equal(value, after[name]) for name, value in before.items())
    assert not given.trains
    new, eos = own.tokenizer.convert_tokens_to_ids(["<thinking>", "</s>"])
    assert (new, own.added) == (len(given.tokenizer), ("<thinking>",))
    torch.testing.assert_close(own.embed(torch.tensor([new])), given.embed(torch.tensor([eos])))
    assert own.plain_ids("<thinking>").tolist() != own.ids("<thinking>").tolist() == [new]
