"""Prompt packs: where their blocks stand in a message, what is official, and what each mistake is answered with.

All texts are made up; fingerprints of made-up texts stand in for the published ones.
"""

import json
from dataclasses import replace
from hashlib import sha256
from pathlib import Path

import pytest
import torch
import yaml
from families import family

from workbench import runs, store
from workbench.__main__ import main
from workbench.backbone import SLOT
from workbench.methods import build
from workbench.methods.lta_thinker import LTAThinkerConfig
from workbench.tasks import load_task, prompts
from workbench.tasks.prompts import Blocks, Fingerprint, Published, fingerprint, load_pack

BEFORE, HINT, GENERATOR = "Work it out, please.\n\n", "A friend says: ", "Write {N} ideas. Here it comes: "
GSM8K = {"before": BEFORE, "hint": HINT, "generator": GENERATOR}
QUESTION = "Tom has 3 pens. How many?"


def pack(folder: Path, tasks: dict, **more: object) -> str:
    path = folder / "pack.yaml"
    path.write_text(yaml.safe_dump({"tasks": tasks, **more}, allow_unicode=True), encoding="utf-8")
    return str(path)


@pytest.fixture
def published(monkeypatch):
    """GSM8K's made-up texts are the published ones: for Qwen3 there are two, and Llama has its own."""
    two = fingerprint(GENERATOR.replace("{N}", "2"))
    one = Published((fingerprint(BEFORE),), (fingerprint("\n\n" + HINT),), (fingerprint(""),), (two,))
    families = {
        "qwen3": one._replace(before=(*one.before, fingerprint("Short. "))),
        "qwen2.5": one,
        "llama": one._replace(generator=(fingerprint("Give 2 words: "),)),
    }
    monkeypatch.setattr(prompts, "PUBLISHED", {"gsm8k": families})


# --------------------------------------------------------------------------------------------------------- the message


def test_blocks_stand_around_the_question(tmp_path):
    task = load_task("gsm8k", prompts=pack(tmp_path, {"gsm8k": {**GSM8K, "after": " Go."}}))
    expected = f"Work it out, please.\n\nProblem: {QUESTION}\n\nA friend says: [HERE] Go."
    assert task.message(QUESTION, "[HERE]", "qwen3") == expected
    assert task.reading(QUESTION, "qwen3", 12) == f"Write 12 ideas. Here it comes: {QUESTION}."


def test_strategyqa_has_the_question_alone(tmp_path):
    blocks = {"before": "Yes or no: ", "hint": "Facts: ", "after": "\n\nSo?", "generator": "{N} ideas: "}
    task = load_task("strategyqa", prompts=pack(tmp_path, {"strategyqa": blocks}))
    assert task.message(QUESTION, "[HERE]", "llama") == f"Yes or no: {QUESTION}\n\nFacts: [HERE]\n\nSo?"
    assert task.reading(QUESTION, "llama", 3) == f"3 ideas: {QUESTION}"


def test_without_a_pack_the_task_speaks_for_itself():
    task = load_task("gsm8k")
    assert task.message(QUESTION, "[HERE]", "qwen3") == f"{task.instruction}\n{QUESTION}[HERE]"
    assert task.reading(QUESTION, "qwen3", 4) == QUESTION
    assert load_task("arith").message(QUESTION, "[HERE]", "other") == f"{QUESTION}[HERE]"


def test_a_familys_own_blocks_come_first(tmp_path):
    tasks = {"gsm8k": {"before": "All. "}, "gsm8k/qwen3": {"before": "Three. "}}
    task = load_task("gsm8k", prompts=pack(tmp_path, tasks))
    assert task.message("Q", "", "qwen3") == "Three. Problem: Q\n\n"
    assert task.message("Q", "", "llama") == task.message("Q", "", "other") == "All. Problem: Q\n\n"
    assert task.reading("Q", "llama", 2) == "Q"  # no block for it: the bare question
    only = load_task("gsm8k", prompts=pack(tmp_path, {"gsm8k/llama": GSM8K}))
    with pytest.raises(
        ValueError, match=r"no blocks of task 'gsm8k' for a backbone of family 'qwen3', only gsm8k/llama"
    ):
        only.message("Q", "", "qwen3")


@pytest.mark.parametrize("name", ["qwen3", "qwen2.5", "llama-3.1"])
def test_the_model_reads_the_packs_message(name, tmp_path):
    task = load_task("arith", prompts=pack(tmp_path, {"arith": {"before": "Think. ", "hint": "Hints: ", "after": "!"}}))
    backbone, example = family(name), task.examples("test", 1)[0]
    for method in ("cot", "direct"):
        prompt = build(method, backbone).render(example, task)
        begin, end = backbone.marks
        text = backbone.tokenizer.decode(torch.cat([prompt.before, prompt.after]))
        assert f"Think. Problem: {example.question}\n\nHints: {begin}{end}!" in text
        before, _ = backbone.around(f"Think. Problem: {example.question}\n\nHints: {SLOT}!")
        assert prompt.before.tolist() == before.tolist()


@pytest.mark.parametrize("generator", ["block", "assistant"])
def test_the_generator_reads_the_packs_words(generator, tmp_path):
    """The number of thoughts is its own; thoughts are those of the longer question."""
    task = load_task("arith", prompts=pack(tmp_path, {"arith": {"before": "Think. ", "generator": GENERATOR}}))
    example, plain = task.examples("test", 1)[0], load_task("arith")
    method = build("lta-thinker", family("qwen3"), LTAThinkerConfig(thoughts=3, generator=generator))
    prompt = method.render(example, task)
    asked = f"Write 3 ideas. Here it comes: {example.question}."
    assert method.backbone.tokenizer.decode(prompt.question) == asked
    longer = method.render(replace(example, question=asked), plain)
    own = method.render(example, plain)
    vectors = [method.think([p]).vectors for p in (prompt, longer, own)]
    torch.testing.assert_close(vectors[0], vectors[1], rtol=0, atol=0)
    assert not torch.allclose(vectors[0], vectors[2], atol=1e-3)


# ------------------------------------------------------------------------------------------------------------- official


def test_the_fingerprint_is_length_and_hash():
    text = "naïve\n"
    assert fingerprint(text) == Fingerprint(6, sha256(text.encode("utf-8")).hexdigest()[:16])


def test_official_blocks_are_known(tmp_path, published):
    found = load_pack(pack(tmp_path, {"gsm8k": GSM8K, "gsm8k/llama": {**GSM8K, "generator": "Give {N} words: "}}))
    official = dict.fromkeys(("before", "hint", "after", "generator"), "official")
    assert found.verdicts == {"gsm8k": official, "gsm8k/llama": official}
    assert found.report("gsm8k") == (
        f"prompts {found.name}: gsm8k before official, hint official, after official, generator official; "
        "gsm8k/llama before official, hint official, after official, generator official"
    )


def test_a_block_for_all_is_official_if_it_is_for_each(tmp_path, published):
    found = load_pack(pack(tmp_path, {"gsm8k": GSM8K})).verdicts["gsm8k"]
    assert found == {"before": "official", "hint": "official", "after": "official", "generator": "own"}  # not Llama's
    short = {"gsm8k": {"before": "Short. "}, "gsm8k/qwen3": {"before": "Short. "}}
    verdicts = load_pack(pack(tmp_path, short)).verdicts
    assert (verdicts["gsm8k"]["before"], verdicts["gsm8k/qwen3"]["before"]) == ("own", "official")


def test_only_the_number_of_thoughts_may_vary_in_the_generators_block(tmp_path, published):
    tasks = {"gsm8k/qwen3": {**GSM8K, "generator": GENERATOR.replace("ideas", "idea")}}
    assert load_pack(pack(tmp_path, tasks)).verdicts["gsm8k/qwen3"]["generator"] == "own"


def test_verifying_refuses_what_is_not_official(tmp_path, published):
    assert load_pack(pack(tmp_path, {"gsm8k/qwen3": GSM8K}, verify=True)).blocks == {"gsm8k/qwen3": Blocks(**GSM8K)}
    path = pack(tmp_path, {"gsm8k/qwen2.5": {**GSM8K, "before": "Short. "}}, verify=True)
    wanted, given = fingerprint(BEFORE), fingerprint("Short. ")
    with pytest.raises(ValueError) as told:  # noqa: PT011  (the whole sentence is compared)
        load_pack(path)
    assert str(told.value) == (
        f"prompt pack {path}: 'before' of 'gsm8k/qwen2.5' is not the published text for qwen2.5, which has 22 "
        f"characters with sha256 {wanted.sha256}, but 7 characters with sha256 {given.sha256}; mend the text, or set "
        "verify: false"
    )
    with pytest.raises(ValueError, match=r"'before' of 'arith' is not a published text: there is none for this task"):
        load_pack(pack(tmp_path, {"arith": {"before": "x"}}, verify=True))


def test_the_published_fingerprints():
    """The table against texts that are interface strings: short, and known."""
    yes_no = {
        "before": "You are required to answer the following question with `Yes` or `No`: ",
        "hint": "\n\nHere are something useful for your reasoning: ",
        "after": "\n\nTherefore, the final answer is `Yes` or `No`?",
    }
    for name in prompts.FAMILIES:
        for block, text in yes_no.items():
            assert getattr(prompts.PUBLISHED["strategyqa"][name], block) == (fingerprint(text),)
    box = "Please reason step by step, and put your final answer within \\boxed{}.\n"
    short = "\n\nHere are prompts from assistant model for reference: "
    qwen3, other = prompts.PUBLISHED["math500"]["qwen3"], prompts.PUBLISHED["math500"]["llama"]
    assert qwen3.before == (fingerprint(box), fingerprint(""))
    assert qwen3.hint == (*other.hint, fingerprint(short))
    assert other.before == prompts.PUBLISHED["gsm8k"]["qwen3"].before[:1] == (Fingerprint(493, "7d6c412a28d27770"),)
    assert {len(found) for found in prompts.PUBLISHED.values()} == {3}
    assert set(prompts.PUBLISHED) == {
        *("gsm8k", "gsm8k-socratic", "math500", "aqua", "strategyqa", "date_understanding", "date_understanding-all")
    }


# ------------------------------------------------------------------------------------------------------ name and hash


def test_the_hash_is_of_the_texts(tmp_path):
    path = pack(tmp_path, {"gsm8k": GSM8K})
    first = load_pack(path)
    Path(path).write_text("# a remark\n" + Path(path).read_text())
    assert load_pack(path).hash == first.hash
    assert (first.name, first.source) == (f"pack@{first.hash}", f"{path}@{first.hash}")
    assert load_pack(first.source) == first
    pack(tmp_path, {"gsm8k": {**GSM8K, "hint": "Another: "}})
    assert load_pack(path).hash != first.hash
    with pytest.raises(ValueError, match=rf"pack.yaml have changed \(hash \w+, asked for {first.hash}\); restore them"):
        load_pack(first.source)


MISTAKES = {
    "no map": ("- a\n", r"must hold 'tasks', a map from tasks to blocks, and may hold 'verify'$"),
    "no tasks": ("verify: true\n", r"must hold 'tasks'"),
    "another key": ("tasks: {gsm8k: {before: a}}\nname: x\n", r"must hold 'tasks'"),
    "verify": ("tasks: {gsm8k: {before: a}}\nverify: maybe\n", r"must hold 'tasks'"),
    "no YAML": ("tasks: [", r"is not YAML \(line 1, .*\); give a prompt pack"),
    "unknown block": (
        "tasks: {gsm8k: {befor: a}}\n",
        r"'gsm8k' must be a map with some of before, hint, after, generator$",
    ),
    "no blocks": ("tasks: {gsm8k: a}\n", r"'gsm8k' must be a map"),
    "no text": ("tasks: {gsm8k: {before: 3}}\n", r"'before' of 'gsm8k' must be text, it is 3$"),
    "family": (
        "tasks: {gsm8k/qwen: {before: a}}\n",
        r"'gsm8k/qwen' names no family; use one of qwen3, qwen2\.5, llama",
    ),
    "number": ("tasks: {gsm8k: {generator: two}}\n", r"'generator' of 'gsm8k' must hold \{N\} where the number of"),
    "other task": ("tasks: {aqua: {before: a}}\n", r"has no blocks of task 'gsm8k', only aqua; add some$"),
}


@pytest.mark.parametrize("name", MISTAKES)
def test_a_mistake_is_one_sentence(name, tmp_path):
    content, complaint = MISTAKES[name]
    (tmp_path / "pack.yaml").write_text(content)
    with pytest.raises(ValueError, match=complaint) as told:
        load_task("gsm8k", prompts=str(tmp_path / "pack.yaml"))
    assert "\n" not in str(told.value)


@pytest.mark.parametrize("source", ["/nowhere.yaml", "/nowhere.yaml@123", ""])
def test_a_missing_pack_is_one_sentence(source):
    with pytest.raises(
        ValueError, match=r"^no prompt pack at '.*'; give a YAML file as in workbench/tasks/prompts\.py$"
    ):
        load_pack(source)


# ---------------------------------------------------------------------------------------------------- a run with a pack


@pytest.mark.slow
def test_a_run_and_its_stores_say_which_pack(tiny_folder, tmp_path, capsys):
    path = pack(tmp_path, {"arith": {"before": "Think. ", "hint": "So: "}})
    found = load_pack(path)
    short = ["--training.examples", "8", "--training.epochs", "1", "--training.probe_examples", "2"]
    train = ["train", "--backbone", str(tiny_folder()), "--method", "soft-prompt", "--task", "arith", *short]
    run, cap = tmp_path / "run", ["--count", "2", "--decoding.max_new_tokens", "2"]
    assert main([*train, "--prompts", path, "--out", str(run)]) == 0
    assert f"prompts {found.name}: arith before own, hint own, after own\n" in capsys.readouterr().out
    assert runs.read_config(run)["prompts"] == found.source
    # the run's pack goes with it, another one or another task's words can be asked for
    assert main(["collect", "--run", str(run), "--out", str(tmp_path / "a.nc"), *cap]) == 0
    other = str(Path(path).rename(tmp_path / "other.yaml"))
    assert main(["collect", "--run", str(run), "--prompts", other, "--out", str(tmp_path / "b.nc"), *cap]) == 0
    assert main(["collect", "--run", str(run), "--task", "arith-shift", "--out", str(tmp_path / "c.nc"), *cap]) == 0
    said = [store.load(tmp_path / f"{name}.nc").attrs["prompts"] for name in "abc"]
    assert said == [found.name, f"other@{found.hash}", ""]
    capsys.readouterr()
    assert main(["collect", "--run", str(run), "--out", str(tmp_path / "d.nc"), *cap]) == 2  # its pack is gone
    assert "no prompt pack at" in capsys.readouterr().err
    # the config repeats the run
    Path(other).rename(path)
    assert main(["train", "--config", str(run / "config.yaml"), "--out", str(tmp_path / "again")]) == 0
    assert (tmp_path / "again" / "weights.safetensors").read_bytes() == (run / "weights.safetensors").read_bytes()
    result = json.loads((run / "result.json").read_text())
    assert result["prompts"] == found.source
