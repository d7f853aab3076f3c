"""One word for one thing: the glossary, and what backbones and methods say of themselves."""

from pathlib import Path

import pytest

import workbench as wb
from workbench import words
from workbench.__main__ import main
from workbench.methods import METHODS, build

ROOT = Path(__file__).parents[1]


def test_the_glossary_of_the_readme_is_the_one_of_the_notebook():
    assert words.page() in (ROOT / "README.md").read_text(encoding="utf-8")
    table = wb.glossary()
    assert list(table.index) == list(words.GLOSSARY)
    assert table.loc["training step", "meaning"] != table.loc["worked step", "meaning"]


def test_options_that_the_glossary_names_are_options(capsys):
    pages = ""
    for command in ("train", "collect", "counter"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        pages += capsys.readouterr().out
    named = [word.strip("`,;") for _, called in words.GLOSSARY.values() for word in called.split()]
    options = [word for word in named if word.startswith("--")]
    assert len(options) > 8
    assert [option for option in options if f"{option} " not in pages] == []


def test_a_backbone_says_what_it_is_in_three_lines(tiny):
    said = repr(tiny("gpt2")).splitlines()
    assert len(said) == 3
    assert said[0].endswith("(gpt2), frozen")
    assert "2 layers of width 32, float32 on cpu" in said[1]


@pytest.mark.parametrize("name", ["lta-thinker", "coconut", "soft-thinking", "cot"])
def test_a_method_says_what_it_is_in_three_lines(name, tiny):
    method = build(name, tiny("gpt2"))
    said = repr(method).splitlines()
    assert len(said) == 3
    assert said[0].startswith(f"{METHODS[name].__name__} ({name}) on ")
    assert said[1] == "  options: the defaults"
    assert said[2] == (
        f"  {method.trainable_parameters:,} numbers are trained" if method.trained else "  nothing is trained"
    )


def test_what_differs_from_the_defaults_is_said(tiny):
    method = build("lta-thinker", tiny("gpt2"), wb.LTAThinkerConfig(thoughts=2))
    assert "options: thoughts=2\n" in repr(method)


def test_the_help_lists_the_methods(capsys):
    for command in ("train", "collect"):
        with pytest.raises(SystemExit):
            main([command, "--help"])
        text = " ".join(capsys.readouterr().out.split())
        assert f"--method METHOD one of {', '.join(sorted(METHODS))}" in text
