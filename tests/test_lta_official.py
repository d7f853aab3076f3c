"""LTA-Thinker's published checkpoint files: written, read, and what does not fit."""

from dataclasses import replace

import lta_parity
import pytest
import torch
from torch import nn

from workbench.checks.official import BLOCK, PROJECTION, export_official, import_official
from workbench.methods import build
from workbench.methods.lta_thinker import LTAThinkerConfig
from workbench.tasks import load_task


@pytest.fixture
def reference(tiny):
    return build("lta-thinker", tiny(), LTAThinkerConfig.reference(3), seed=5)


def test_export_and_import_return_the_same_method(reference, tiny, tmp_path):
    folder = export_official(reference, tmp_path / "checkpoint-1")
    assert {path.name for path in folder.iterdir()} == {PROJECTION, BLOCK}
    projection, block = (torch.load(folder / name, weights_only=True) for name in (PROJECTION, BLOCK))
    assert {name: (t.dtype, tuple(t.shape)) for name, t in projection.items()} == {
        "weight": (torch.bfloat16, (32, 32)), "bias": (torch.bfloat16, (32,))
    }  # fmt: skip
    assert {f"TransformerBlock.{name}": tuple(t.shape) for name, t in block.items()} == {
        name: shape for name, shape in lta_parity.shapes(32, 64).items() if name.startswith("Transformer")
    }
    assert {t.dtype for t in block.values()} == {torch.float32}

    again = import_official(folder, tiny(), thoughts=3)
    assert again.config == LTAThinkerConfig.reference(3)
    assert not again.training
    for (name, ours), theirs in zip(reference.named_parameters(), again.parameters(), strict=True):
        assert torch.equal(ours, theirs), name
    task = load_task("arith-shift")
    prompts = [reference.render(e, task) for e in task.examples("dev", 3)]
    assert torch.equal(reference.think(prompts).vectors, again.think(prompts).vectors)
    assert import_official(str(folder), tiny()).think(prompts).vectors.shape[2] == LTAThinkerConfig.reference().thoughts


def test_any_floating_point_is_read(reference, tiny, tmp_path):
    folder = export_official(reference, tmp_path / "x")
    for name in (PROJECTION, BLOCK):
        torch.save({k: t.double() for k, t in torch.load(folder / name).items()}, folder / name)
    again = import_official(folder, tiny(), thoughts=3)
    assert again.projection.weight.dtype == torch.bfloat16
    assert torch.equal(again.projection.weight, reference.projection.weight)
    assert torch.equal(again.block.linear1.weight, reference.block.linear1.weight)


def test_export_is_whole_or_absent(reference, tmp_path, monkeypatch):
    save = torch.save

    def full_disk(tensors, path):
        if path.name == BLOCK:
            raise OSError("no space left")
        save(tensors, path)

    monkeypatch.setattr(torch, "save", full_disk)
    with pytest.raises(OSError, match="no space left"):
        export_official(reference, tmp_path / "out" / "x")
    assert list((tmp_path / "out").iterdir()) == []


def test_export_refuses_what_the_files_cannot_say(reference, tiny, tmp_path):
    folder = export_official(reference, tmp_path / "x")
    with pytest.raises(ValueError, match="is there already; give a new folder"):
        export_official(reference, folder)
    corrected = build("lta-thinker", tiny())
    with pytest.raises(ValueError, match=r"has no slots='learned', input_norm=.*; train one with slots='token-ids', "):
        export_official(corrected, tmp_path / "y")
    heads = build("lta-thinker", tiny(), replace(LTAThinkerConfig.reference(), heads=2))
    with pytest.raises(
        ValueError, match="has no heads=2, so its files cannot hold this method; train one with heads=1"
    ):
        export_official(heads, tmp_path / "y")
    linear = build("lta-thinker", tiny(), replace(LTAThinkerConfig.reference(), generator="linear"))
    with pytest.raises(ValueError, match=r"has no generator='linear', .*; train one with generator='block'"):
        export_official(linear, tmp_path / "y")
    for option in ({"positions": True}, {"slot_start": 5}):
        other = build("lta-thinker", tiny(), replace(LTAThinkerConfig.reference(), **option))
        (name,) = option
        with pytest.raises(ValueError, match=f"has no {name}="):
            export_official(other, tmp_path / "y")
    assert not (tmp_path / "y").exists()


def test_the_assistant_path_has_a_projection_alone(tiny, tiny_folder, tmp_path):
    """On another assistant and on the backbone itself."""
    for place, assistant in (("x", str(tiny_folder("llama", chat=True))), ("y", "")):
        config = replace(LTAThinkerConfig.reference(3), generator="assistant", assistant=assistant)
        method = build("lta-thinker", tiny(), config, seed=5)
        folder = export_official(method, tmp_path / place)
        assert [path.name for path in folder.iterdir()] == [PROJECTION]
        again = import_official(folder, tiny(), thoughts=3, assistant=assistant)
        assert again.config == config
        prompts = [method.render(e, load_task("arith-shift")) for e in load_task("arith-shift").examples("dev", 3)]
        assert torch.equal(method.think(prompts).vectors, again.think(prompts).vectors)
    torch.save({"weight": torch.zeros(32, 48), "bias": torch.zeros(32)}, folder / PROJECTION)
    with pytest.raises(ValueError, match=r"'weight' has shape \(32, 48\), but backbone '.* with assistant .*' needs"):
        import_official(folder, tiny(), assistant=str(tiny_folder("llama", chat=True)))


def test_a_checkpoint_with_a_block_takes_no_assistant(reference, tiny, tmp_path):
    folder = export_official(reference, tmp_path / "x")
    with pytest.raises(ValueError, match=r"Block\.bin, which the assistant path does not have; leave out assistant"):
        import_official(folder, tiny(), assistant="")


def saved(name, value):
    return lambda folder: torch.save(value, folder / name)


def edited(name, change):
    def edit(folder):
        tensors = torch.load(folder / name)
        change(tensors)
        torch.save(tensors, folder / name)

    return edit


def alone(projection):
    def edit(folder):
        (folder / BLOCK).unlink()
        if projection is not None:
            torch.save(projection, folder / PROJECTION)

    return edit


MISMATCHES = {
    r"lacks projection\.bin; give a checkpoint folder": lambda folder: (folder / PROJECTION).unlink(),
    "as the 'ckpt' folder does .* where the block is forgotten; give one of its per-epoch folders": alone(None),
    r"of the published assistant path \(no Transf.* width 16\); give assistant=\.\.\., the name": alone(
        {"weight": torch.zeros(32, 16), "bias": torch.zeros(32)}
    ),
    r"projection\.bin: tensor 'weight' has shape \(48, 48\), but backbone '.*' needs \(32, 32\); load": edited(
        PROJECTION, lambda t: t.update(weight=torch.zeros(48, 48))
    ),
    r"Block\.bin: tensor 'linear1\.weight' has shape \(65, 32\), but .* needs \(64, 32\)": edited(
        BLOCK, lambda t: t.update({"linear1.weight": torch.zeros(65, 32)})
    ),
    r"Block\.bin lacks tensor 'norm2\.weight'; it needs self_attn\.in_proj_weight, ": edited(
        BLOCK, lambda t: t.pop("norm2.weight")
    ),
    r"Block\.bin has a tensor 'norm3\.weight' that is not part of LTA-Thinker; give": edited(
        BLOCK, lambda t: t.update({"norm3.weight": torch.zeros(2)})
    ),
    r"projection\.bin: 'weight' is torch\.int64 where a floating-point tensor is needed": saved(
        PROJECTION, {"weight": torch.zeros(32, 32, dtype=torch.long), "bias": torch.zeros(32)}
    ),
    r"projection\.bin: 'epoch' is int where": saved(PROJECTION, {"epoch": 3}),
    r"projection\.bin holds a Tensor where a state dict is needed": saved(PROJECTION, torch.zeros(2)),
    r"Block\.bin holds no tensors that torch can load safely \(.*\); give the file": saved(BLOCK, nn.Linear(2, 2)),
    r"projection\.bin holds no tensors that torch can load safely": lambda folder: (
        (folder / PROJECTION).write_bytes(b"version https://git-lfs.github.com/spec/v1\n") and None
    ),
    r"Block\.bin holds no tensors that": lambda folder: (folder / BLOCK).write_bytes(b"") and None,
}


@pytest.mark.parametrize("sentence", MISMATCHES)
def test_files_that_do_not_fit_are_named(sentence, reference, tiny, tmp_path):
    folder = export_official(reference, tmp_path / "x")
    MISMATCHES[sentence](folder)
    with pytest.raises(ValueError, match=sentence) as error:
        import_official(folder, tiny())
    assert "\n" not in str(error.value)


def test_a_truncated_file_and_a_missing_folder_are_named(reference, tiny, tmp_path):
    folder = export_official(reference, tmp_path / "x")
    content = (folder / BLOCK).read_bytes()
    (folder / BLOCK).write_bytes(content[: len(content) // 2])
    with pytest.raises(ValueError, match="holds no tensors that torch can load safely"):
        import_official(folder, tiny())
    with pytest.raises(ValueError, match="no folder at nowhere; give one that holds"):
        import_official("nowhere", tiny())


def test_other_backbones_have_other_shapes(reference, tiny, tmp_path):
    folder = export_official(reference, tmp_path / "x")
    with pytest.raises(ValueError, match=r"'linear1.weight' has shape \(64, 32\), but backbone .* needs \(128, 32\)"):
        import_official(folder, tiny("gpt2"))
