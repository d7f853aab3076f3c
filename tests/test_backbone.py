"""The backbone: vectors in place of words change nothing, and neither does what else is in the batch."""

import pytest
import torch
from torch.nn import functional as F

from workbench.backbone import SLOT, Backbone, Decoding
from workbench.methods import Prompt, Thoughts, build
from workbench.tasks import Example

FAMILIES = ("qwen3", "llama", "gpt2")


def words(backbone: Backbone, n: int, seed: int) -> torch.Tensor:
    ids = torch.randint(6, len(backbone.table), (n,), generator=torch.Generator().manual_seed(seed))
    return ids


def prompts(backbone: Backbone) -> list[Prompt]:
    """Rows of unequal lengths."""
    made = []
    for k, n in enumerate((5, 9, 7)):
        example = Example(f"e{k}", "q", ("a", "b"), "1")
        parts = [words(backbone, size, 10 * k + j) for j, size in enumerate((n, 2 + k, 3 + k, 3, 2, 1))]
        made.append(Prompt(example, parts[0], parts[1], parts[2], parts[3], (parts[4],), parts[5]))
    return made


def holes(backbone: Backbone) -> tuple[torch.Tensor, Thoughts]:
    """Token ids as thoughts, some of them masked out."""
    ids = words(backbone, 12, 99).view(3, 1, 4)
    mask = torch.tensor([[[1, 1, 1, 1]], [[1, 0, 1, 1]], [[0, 0, 0, 0]]], dtype=torch.bool)
    return ids, Thoughts(backbone.embed(ids), mask)


@pytest.mark.slow
@pytest.mark.parametrize("family", FAMILIES)
def test_thoughts_that_are_words_answer_and_score_as_the_text_does(tiny, family):
    backbone = tiny(family)
    method = build("cot", backbone)
    ids, thoughts = holes(backbone)
    given = prompts(backbone)
    answers = method.answer(given, thoughts, Decoding(max_new_tokens=6))
    losses = method.likelihood(given, thoughts)
    for i, p in enumerate(given):
        text = torch.cat([p.before, ids[i, 0][thoughts.mask[i, 0]], p.after])[None]
        written = backbone.model.generate(
            text, attention_mask=torch.ones_like(text), max_new_tokens=6, do_sample=False, pad_token_id=0,
            eos_token_id=sorted(backbone.stops),
        )[0, text.shape[1] :].tolist()  # fmt: skip
        written = written[: next((k for k, t in enumerate(written) if t in backbone.stops), len(written))]
        assert list(answers[i][0][0].tokens) == written
        logits = backbone.model(torch.cat([text[0], p.target])[None]).logits[0, -len(p.target) - 1 : -1]
        torch.testing.assert_close(losses[i], F.cross_entropy(logits, p.target), atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("family", FAMILIES)
def test_gradients_reach_thoughts_as_without_the_cached_prefix(tiny, family):
    backbone = tiny(family)
    method = build("cot", backbone)
    given = prompts(backbone)
    vectors = backbone.embed(words(backbone, 12, 5).view(3, 1, 4)).detach().requires_grad_()
    ours = method.likelihood(given, Thoughts(vectors, torch.ones(3, 1, 4, dtype=torch.bool))).mean()
    plain = torch.zeros(())
    for i, p in enumerate(given):
        row = torch.cat([backbone.embed(p.before), vectors[i, 0], backbone.embed(p.after), backbone.embed(p.target)])
        logits = backbone.model(inputs_embeds=row[None]).logits[0, -len(p.target) - 1 : -1]
        plain = plain + F.cross_entropy(logits, p.target) / 3
    torch.testing.assert_close(ours, plain, atol=1e-5, rtol=1e-5)
    pairs = torch.autograd.grad(ours, vectors)[0], torch.autograd.grad(plain, vectors)[0]
    torch.testing.assert_close(*pairs, atol=1e-7, rtol=1e-4)


@pytest.mark.parametrize("family", FAMILIES)
def test_batch_mates_and_padding_change_no_answer_and_no_loss(tiny, family):
    backbone = tiny(family)
    method = build("cot", backbone)
    given = prompts(backbone)
    _, thoughts = holes(backbone)
    every = Decoding(5, temperature=1.0, top_p=0.9, top_k=20, min_p=0.01, repetition_penalty=1.3)
    for decoding in (Decoding(5), Decoding(5, temperature=1.0, top_p=0.9), Decoding(5, repetition_penalty=1.5), every):
        together = method.answer(given, thoughts, decoding, draws=2, seed=3)
        for i, p in enumerate(given):
            one = Thoughts(thoughts.vectors[i : i + 1], thoughts.mask[i : i + 1])
            assert method.answer([p], one, decoding, draws=2, seed=3)[0] == together[i]
            alone = method.likelihood([p], one)[0]
            torch.testing.assert_close(alone, method.likelihood(given, thoughts)[i], atol=1e-5, rtol=1e-5)


def test_a_sampled_answer_depends_on_its_own_seed_and_draw_only(tiny):
    backbone = tiny()
    rows = [backbone.embed(words(backbone, n, n)) for n in (4, 6)]
    warm = Decoding(max_new_tokens=12, temperature=1.5)
    first = backbone.generate(rows, warm, draws=3, seeds=[1, 2])
    assert backbone.generate(rows[::-1], warm, draws=3, seeds=[2, 1]) == first[::-1]
    assert backbone.generate(rows, warm, draws=2, seeds=[1, 2]) == [row[:2] for row in first]
    assert len({c.tokens for c in first[0]}) > 1
    with pytest.raises(ValueError, match="one seed per row"):
        backbone.generate(rows, warm)


def test_sampling_follows_the_probabilities(tiny):
    backbone = tiny()
    row = backbone.embed(words(backbone, 5, 0))
    found = backbone.generate([row] * 600, Decoding(max_new_tokens=1, temperature=0.5), seeds=list(range(600)))
    counts = torch.zeros(len(backbone.table))
    for (answer,) in found:
        counts[answer.tokens[0] if answer.tokens else backbone.tokenizer.eos_token_id] += 1
    expected = (backbone.model(inputs_embeds=row[None]).logits[0, -1] / 0.5).softmax(-1)
    assert (counts / 600 - expected).abs().max() < 0.06


def test_top_p_keeps_the_smallest_likely_set(tiny):
    backbone = tiny()
    row = backbone.embed(words(backbone, 5, 0))
    decoding = Decoding(max_new_tokens=1, temperature=1.0, top_p=1e-6)
    found = {c.tokens for (c,) in backbone.generate([row] * 200, decoding, seeds=list(range(200)))}
    assert len(found) == 1


def test_stopping_at_the_cap_is_not_finishing(tiny):
    backbone = tiny()
    rows = [backbone.embed(words(backbone, 4, 1))]
    backbone.model.generation_config.eos_token_id = []
    likely = backbone.generate(rows, Decoding(max_new_tokens=3))[0][0]
    assert len(likely.tokens) == 3
    assert not likely.finished
    backbone.model.generation_config.eos_token_id = likely.tokens[1]
    stopped = backbone.generate(rows, Decoding(max_new_tokens=3))[0][0]
    first = likely.tokens.index(likely.tokens[1])
    assert stopped.tokens == likely.tokens[:first]
    assert stopped.finished


def test_a_four_dimensional_mask_says_who_reads_whom(tiny):
    backbone = tiny()
    row = backbone.embed(words(backbone, 6, 2))[None]
    causal = torch.ones(6, 6, dtype=torch.bool).tril()[None, None]
    positions = torch.arange(6)[None]
    every = torch.arange(6)
    own = backbone.run(row, causal, positions=positions, logits_at=every).logits
    plain = backbone.run(row, torch.ones(1, 6, dtype=torch.bool), logits_at=every).logits
    torch.testing.assert_close(own, plain)
    blind = causal.clone()
    blind[..., 5, 1] = False
    assert not torch.equal(backbone.run(row, blind, positions=positions, logits_at=every).logits[0, 5], plain[0, 5])
    with pytest.raises(ValueError, match="4-D mask comes with its own positions"):
        backbone.run(row, causal)


def test_logits_and_states_only_where_asked(tiny):
    backbone = tiny()
    row, mask = backbone.embed(words(backbone, 6, 2))[None], torch.ones(1, 6, dtype=torch.bool)
    whole = backbone.model(inputs_embeds=row, output_hidden_states=True)
    out = backbone.run(row, mask, logits_at=torch.tensor([1, 4]), hidden=True)
    torch.testing.assert_close(out.logits, whole.logits[:, [1, 4]])
    torch.testing.assert_close(out.hidden, whole.hidden_states[-1])
    silent = backbone.run(row, mask)
    assert silent.logits is None
    torch.testing.assert_close(silent.hidden, whole.hidden_states[-1])


def test_the_slot_is_searched_in_the_rendered_chat(tiny):
    backbone = tiny(chat=True)
    before, after = backbone.around(f"Tom has {SLOT}", "think")
    decode = backbone.tokenizer.decode
    text = decode(torch.cat([before, after]))
    assert "Tom has" in decode(before)
    assert decode(before).rstrip().endswith("<bot>")
    assert decode(after).lstrip().startswith("<eot>")
    assert text.rstrip().endswith("think")
    with pytest.raises(ValueError, match="once, this one holds it 0 times"):
        backbone.around("no slot")
    with pytest.raises(ValueError, match="2 times"):
        backbone.around(SLOT + SLOT)


def test_a_missing_backbone_is_one_sentence(tmp_path):
    with pytest.raises(ValueError, match="no backbone at '/nowhere': give a shipped name"):
        Backbone.load("/nowhere")
    with pytest.raises(ValueError, match="could not be loaded"):
        Backbone.load(str(tmp_path))
