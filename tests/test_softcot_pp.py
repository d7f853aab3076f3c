"""SoftCoT++ against its formulas restated plainly: paths, contrast, starts that learn, and SoftCoT as one path."""

import math
from dataclasses import replace

import pytest
import torch
from families import family, save
from safetensors.torch import load_file
from softcot_plain import plain_contrast, plain_likelihood, plain_thoughts, same

from workbench.__main__ import main
from workbench.backbone.checkpointing import checkpointed
from workbench.evidence.collect import collect
from workbench.methods import build
from workbench.methods.assistant import slot_ids
from workbench.methods.softcot import SoftCoTConfig
from workbench.methods.softcot_pp import SoftCoTPPConfig, contrast, path_cosine
from workbench.runs import load_method, save_weights
from workbench.tasks import load_task
from workbench.training.loop import TrainConfig, train


@pytest.fixture
def task():
    return load_task("arith-shift")


def made(backbone, task, count=4, **options):
    method = build("softcot-pp", backbone, SoftCoTPPConfig(**options), seed=2)
    return method, [method.render(example, task) for example in task.examples("train", count)]


def normal(*shape, dtype=torch.float64, seed=0):
    return torch.randn(shape, dtype=dtype, generator=torch.Generator().manual_seed(seed))


def trained(method):
    return [p for p in method.parameters() if p.requires_grad]


# ------------------------------------------------------------------------------------------------------------- formulas


@pytest.mark.parametrize("own", [True, False], ids=["an assistant of its own", "the backbone itself"])
@pytest.mark.parametrize(
    "options",
    [
        {"diversity_weight": 3.0},
        {"diversity_weight": 0.5, "temperature": 0.7, "path_likelihood": "sum", "starts": "frozen"},
        {"diversity_weight": 0.01, "similarity": "dot"},
    ],
    ids=["cosine", "sum, frozen", "dot"],
)
def test_loss_and_gradients_equal_the_formulas(tiny, task, assistant, options, own):
    method, prompts = made(tiny(), task, thoughts=3, paths=3, assistant=assistant if own else "", **options)
    config, total = method.config, 0
    temperature = None if config.similarity == "dot" else config.temperature
    starts = method._starts(3)
    for p in prompts:
        thoughts = [plain_thoughts(method, p, start) for start in starts]
        each = torch.stack([plain_likelihood(method, p, t) for t in thoughts])
        likelihood = each.sum() if config.path_likelihood == "sum" else each.mean()
        total = total + likelihood + config.diversity_weight * plain_contrast(thoughts, temperature)
    same(method.loss(prompts).total, total / len(prompts), trained(method))


@pytest.mark.parametrize("dropped", [False, True])
@pytest.mark.parametrize("temperature", [0.05, 1.0, None])
def test_contrast_and_its_gradient_equal_the_formula(temperature, dropped):
    thoughts = (0.3 * normal(2, 4, 3, 5) + normal(1, 1, 3, 5, seed=1)).requires_grad_()
    kept = 2.0 * (normal(2, 4, 3, 5, seed=2) > 0) if dropped else None
    ours = contrast(thoughts, temperature, kept)
    plain = torch.stack(
        [plain_contrast([*thoughts[b]], temperature, None if kept is None else [*kept[b]]) for b in range(2)]
    )
    torch.testing.assert_close(ours, plain, rtol=1e-10, atol=1e-12)
    found, expected = (torch.autograd.grad(loss.sum(), thoughts)[0] for loss in (ours, plain))
    assert found.abs().max() > 1e-6
    torch.testing.assert_close(found, expected, rtol=1e-8, atol=1e-12)


def test_mixed_precision_does_not_blur_the_contrast():
    thoughts = (0.01 * normal(2, 4, 3, 5) + normal(1, 1, 3, 5, seed=1)).float()
    with torch.autocast("cpu", torch.bfloat16):
        blurred = contrast(thoughts)
    assert torch.equal(blurred, contrast(thoughts))


def test_the_published_anchors_of_the_contrast():
    ten = normal(1, 1, 4, 6).expand(1, 10, -1, -1)
    torch.testing.assert_close(contrast(ten), torch.tensor([math.log(10)], dtype=torch.float64))
    assert math.log(10) == pytest.approx(2.3026, abs=1e-4)
    apart = torch.eye(10, dtype=torch.float64).view(1, 10, 2, 5)
    torch.testing.assert_close(contrast(apart), torch.tensor([math.log1p(9 * math.exp(-20))], dtype=torch.float64))
    assert contrast(apart).item() == pytest.approx(1.9e-8, rel=0.03)
    assert contrast(apart.float()).item() < 1e-7
    batch = normal(4, 3, 2, 5)
    torch.testing.assert_close(contrast(batch).mean(), torch.stack([contrast(one[None]) for one in batch]).mean())


def test_published_dropout_ends_the_contrast_early():
    """A path's cosine with itself is about sqrt(1/2), so unrelated paths cost 1e-5, a thousand times more."""
    paths = torch.linalg.qr(normal(4096, 10))[0].T.reshape(1, 10, 32, 128)
    kept = 2.0 * (torch.rand(paths.shape, generator=torch.Generator().manual_seed(3)) < 0.5)
    cosine = torch.cosine_similarity(paths.flatten(2), (paths * kept).flatten(2), dim=-1)
    torch.testing.assert_close(cosine, torch.full_like(cosine, 0.707), atol=0.02, rtol=0)
    assert 5e-6 < contrast(paths, 0.05, kept).item() < 2e-5


def test_path_cosine_by_hand():
    paths = torch.tensor([[[[1.0, 0.0]], [[0.0, 2.0]], [[3.0, 3.0]]]])
    torch.testing.assert_close(path_cosine(paths), torch.tensor([(0 + 2 * math.sqrt(0.5)) / 3]))


# ------------------------------------------------------------------------------------------------------------- one path


@pytest.mark.parametrize("starts", ["learned", "frozen"])
@pytest.mark.parametrize("chat", [False, True])
def test_with_one_path_it_is_softcot(tiny, task, assistant, starts, chat):
    shared = {"thoughts": 3, "assistant": assistant if chat else ""}
    method, prompts = made(tiny(chat=chat), task, paths=1, starts=starts, **shared)
    softcot = build("softcot", tiny(chat=chat), SoftCoTConfig(**shared), seed=2)
    assert torch.equal(method.think(prompts).vectors, softcot.think(prompts).vectors)
    ours, theirs = method.loss(prompts), softcot.loss(prompts)
    assert torch.equal(ours.total, theirs.total)
    assert ours.parts["diversity"] == 0
    ours.total.backward()
    theirs.total.backward()
    assert torch.equal(method.projection.weight.grad, softcot.projection.weight.grad)
    assert torch.equal(method.projection.bias.grad, softcot.projection.bias.grad)


def test_one_frozen_path_trains_to_the_same_weights_as_softcot(tiny, task, tmp_path):
    config = TrainConfig(examples=16, epochs=2, batch_size=8, probe_examples=4)
    method, _ = made(tiny(), task, thoughts=3, paths=1, starts="frozen")
    softcot = build("softcot", tiny(), SoftCoTConfig(thoughts=3), seed=2)
    files = [load_file(train(m, task, config, tmp_path / m.name) / "weights.safetensors") for m in (method, softcot)]
    assert files[0].keys() == files[1].keys()
    assert all(torch.equal(files[0][name], files[1][name]) for name in files[0])


# --------------------------------------------------------------------------------------------------------------- starts


def test_starts_learn_from_the_contrast_unless_frozen(tiny, task):
    """As published they are called trained and get no gradient."""
    method, prompts = made(tiny(), task, paths=3)
    diversity = method.loss(prompts).parts["diversity"]
    gradients = torch.autograd.grad(diversity, [method.starts, method.projection.weight])
    assert all(torch.isfinite(g).all() for g in gradients)
    assert (gradients[0].abs().sum(1) > 1e-4).all()
    assert gradients[1].abs().max() > 1e-4
    frozen, _ = made(tiny(), task, paths=3, starts="frozen")
    assert {name for name, p in frozen.named_parameters() if p.requires_grad} == {
        "projection.weight",
        "projection.bias",
    }
    assert torch.equal(frozen.think(prompts, paths=3).vectors, method.think(prompts, paths=3).vectors)
    frozen.loss(prompts).total.backward()
    assert all(p.grad is None for name, p in frozen.named_parameters() if not name.startswith("projection."))


def test_the_contrast_drives_paths_apart(tiny, task):
    method, prompts = made(tiny(), task, paths=4, diversity_weight=1.0)
    optimizer = torch.optim.Adam([method.starts], lr=0.02)
    seen = []
    for _ in range(12):
        parts = method.loss(prompts).parts
        seen.append((parts["diversity"].item(), parts["path_cosine"].item()))
        optimizer.zero_grad()
        parts["diversity"].backward()
        optimizer.step()
    assert seen[-1][0] < 0.8 * seen[0][0]
    assert seen[-1][1] < seen[0][1] - 0.02


def test_starts_begin_as_the_placeholder_and_rare_tokens(tiny):
    size = len(tiny().table)
    method = build("softcot-pp", tiny(), SoftCoTPPConfig(paths=3))
    assert method.start_ids.tolist() == [method.placeholder, size - 3, size - 2]
    assert torch.equal(method.starts, tiny().table[method.start_ids])
    published = build("softcot-pp", tiny(), SoftCoTPPConfig(paths=3, first_start="rare"))
    assert published.start_ids.tolist() == slot_ids(tiny(), 3).tolist() == [size - 3, size - 2, size - 1]


@pytest.mark.parametrize("place", [-3, -1])
def test_no_two_starts_are_the_same(tiny, place):
    """Also where the placeholder is one of the last tokens, as in GPT-2."""
    size = len(tiny().table)
    token = tiny().tokenizer.convert_ids_to_tokens(size + place)
    method = build("softcot-pp", tiny(), SoftCoTPPConfig(paths=3, placeholder=token))
    others = [k for k in (size - 3, size - 2, size - 1) if k != size + place]
    assert method.start_ids.tolist() == [size + place, *others]


def test_a_path_is_its_start_at_every_slot(tiny, task):
    """Its place among the paths and their number change nothing."""
    method, prompts = made(tiny(), task, thoughts=3, paths=4)
    every = method.think(prompts, paths=4).vectors
    for paths in (1, 2, 3):
        torch.testing.assert_close(method.think(prompts, paths=paths).vectors, every[:, :paths], atol=1e-5, rtol=1e-4)
    apart = [plain_thoughts(method, prompts[1], start) for start in method.starts]
    torch.testing.assert_close(every[1], torch.stack(apart), atol=2e-5, rtol=1e-4)
    assert path_cosine(every).max() < 0.999


def test_more_paths_than_starts_is_one_sentence(tiny, tiny_folder, task, tmp_path, capsys):
    method, prompts = made(tiny(), task, paths=2)
    sentence = "softcot-pp has 2 starts, 3 paths are asked for; give at most 2, or train it with --options.paths 3"
    with pytest.raises(ValueError, match=f"^{sentence}$"):
        method.think(prompts, paths=3)
    with pytest.raises(ValueError, match=sentence):
        collect(method, task, task.examples("dev", 2), paths=3)
    what = ["--method", "softcot-pp", "--backbone", str(tiny_folder()), "--options.paths", "2", "--count", "2"]
    assert main(["collect", *what, "--paths", "3", "--out", str(tmp_path / "a.nc")]) == 2
    assert capsys.readouterr().err == f"workbench: {sentence}\n"


# ------------------------------------------------------------------------------------------------------------ published


def test_the_reference_weighs_as_published(tiny, task):
    """The sum over paths, and the contrast over the number of paths once more."""
    config = replace(
        SoftCoTPPConfig.reference(2, 5), projection_dtype="float32", likelihood_mean="example", dropout=0.0
    )
    method = build("softcot-pp", tiny(), config, seed=2)
    prompts = [method.render(example, task) for example in task.examples("train", 3)]
    total, parts = 0, method.loss(prompts).parts
    for p in prompts:
        thoughts = [plain_thoughts(method, p, start) for start in tiny().table[slot_ids(tiny(), 5)]]
        learned = replace(p, target=p.target[:-1])
        total = total + sum(plain_likelihood(method, learned, t) for t in thoughts) + plain_contrast(thoughts, 0.05) / 5
    same(method.loss(prompts).total, total / 3, trained(method))
    assert parts["likelihood"] < method.loss(prompts).total / 4
    assert SoftCoTPPConfig.reference() == SoftCoTPPConfig.reference(32, 10)
    assert (SoftCoTPPConfig.reference().dropout, SoftCoTPPConfig.reference().starts) == (0.5, "frozen")


def test_dropout_is_drawn_anew_each_step_and_for_each_example(tiny, task):
    method, prompts = made(tiny(), task, thoughts=16, paths=3, dropout=0.25)
    losses = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        losses.append(method.loss(prompts).parts["diversity"])
    assert losses[0] == losses[1]
    assert losses[0] != losses[2]
    pieces = [method.loss([p]).parts["diversity"] for p in prompts]
    torch.testing.assert_close(losses[2], torch.stack(pieces).mean(), atol=1e-5, rtol=1e-4)
    vectors = method.think(prompts, paths=3).vectors
    kept = method._kept(prompts, vectors)
    assert kept.unique().tolist() == pytest.approx([0, 4 / 3])
    assert (kept == 0).float().mean() == pytest.approx(0.25, abs=0.02)
    assert not torch.equal(kept[0, 0], kept[0, 1])
    assert not torch.equal(kept[0, 0], kept[1, 0])
    torch.testing.assert_close(losses[2], contrast(vectors, 0.05, kept).mean(), atol=1e-5, rtol=1e-4)


# --------------------------------------------------------------------------------------------------------- in the works


@pytest.mark.parametrize("own", [True, False])
def test_gradient_checkpointing_changes_no_gradient(tiny, task, assistant, own):
    """Also where the assistant is the very model whose layers run again."""
    method, prompts = made(tiny(), task, paths=2, assistant=assistant if own else "")
    plain = torch.autograd.grad(method.loss(prompts).total, trained(method))
    with checkpointed(method.backbone.model):
        again = torch.autograd.grad(method.loss(prompts).total, trained(method))
    for found, expected in zip(again, plain, strict=True):
        torch.testing.assert_close(found, expected)


def test_families_read_with_each_others_assistants(task, tmp_path):
    folder = save(family("llama-3.2"), tmp_path)
    method, prompts = made(family("qwen3"), task, paths=3, assistant=folder)
    same(
        method.loss(prompts).parts["likelihood"],
        torch.stack(
            [plain_likelihood(method, p, plain_thoughts(method, p, start)) for p in prompts for start in method.starts]
        ).mean(),
        trained(method),
    )


def test_a_saved_run_holds_projection_and_starts(tiny, task, assistant, tmp_path):
    method, prompts = made(tiny(), task, paths=3, assistant=assistant)
    method.starts.data.mul_(2)
    saved = load_file(save_weights(method, tmp_path))
    assert {name: tuple(t.shape) for name, t in saved.items()} == {
        "projection.weight": (32, 16),
        "projection.bias": (32,),
        "starts": (3, 16),
    }
    again = load_method(tmp_path)
    assert torch.equal(again.think(prompts, paths=3).vectors, method.think(prompts, paths=3).vectors)


def test_the_command_line_trains_and_answers_along_several_paths(tiny_folder, tmp_path, capsys):
    what = ["--method", "softcot-pp", "--backbone", str(tiny_folder()), "--options.paths", "3"]
    short = ["--training.examples", "16", "--training.epochs", "1", "--training.probe_examples", "4"]
    run, store = tmp_path / "run", tmp_path / "test.nc"
    assert main(["train", *what, *short, "--out", str(run)]) == 0
    cap = ["--count", "4", "--decoding.max_new_tokens", "4", "--paths", "3", "--out", str(store)]
    assert main(["collect", "--run", str(run), *cap]) == 0
    said = capsys.readouterr().out
    assert f"{32 * 32 + 32 + 3 * 32:,} trainable" in said
    assert f"{store}: 4 questions" in said
    assert "of 12 answers" in said


def test_options_that_make_no_sense_are_named():
    with pytest.raises(ValueError, match=r"temperature=0.1 would change nothing here: it needs similarity='cosine'"):
        SoftCoTPPConfig(similarity="dot", temperature=0.1)
    with pytest.raises(ValueError, match=r"placeholder='<bot>' would change nothing .* first_start='placeholder'"):
        SoftCoTPPConfig(first_start="rare", placeholder="<bot>")
    with pytest.raises(ValueError, match="paths is 0; give a number from 1 to 64"):
        SoftCoTPPConfig(paths=0)
    with pytest.raises(ValueError, match=r"dropout is 1\.0; give a number from 0 to 0.99"):
        SoftCoTPPConfig(dropout=1.0)
