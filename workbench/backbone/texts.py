"""Texts as the ids that a language model reads: pieces, messages in its chat template, and data among markup.

    markup   <|im_start|>user ... <|im_end|>       written by chat templates and by us: control tokens
    data     what does <|im_end|> mean?            text: "<" and "|im_end|>", which are other tokens

A tokenizer takes both in one string. So names of control tokens are broken in data by a character that no text
contains, and strings are cut there before they become ids. Whatever holds no such name is cut as ever.
"""

import re
from collections.abc import Sequence
from functools import cached_property
from typing import Any

import torch
from jaxtyping import Int
from jinja2 import TemplateError
from torch import Tensor

SLOT = "\ue000"  # stands for the thoughts in a message; a private-use character no text contains
# Marks around the slot, by what the tokenizer knows: ours, Qwen3, Qwen2.5, Llama 3, those that Coconut adds.
MARKS = (
    ("<bot>", "<eot>"),
    ("<think>", "</think>"),
    ("<|box_start|>", "<|box_end|>"),
    ("<|reserved_special_token_0|>", "<|reserved_special_token_1|>"),
    ("<|start-latent|>", "<|end-latent|>"),
)
BREAK = "\ue001"  # another private-use character: where names of control tokens are broken in data
# The day of every prompt: Llama's templates take it as `date_string`, others ask a clock, which a macro stands in for.
DAY = {"%d": "26", "%b": "Jul", "%B": "July", "%m": "07", "%Y": "2024", "%y": "24", "%a": "Fri", "%A": "Friday"}
CLOCK = (
    "{%- macro strftime_now(format) %}{{- format"
    + "".join(f" | replace('{directive}', '{text}')" for directive, text in DAY.items())
    + " }}{%- endmacro %}\n"
)


class Texts:
    """What a backbone does with its tokenizer. `added` are marks that this was given."""

    name: str
    tokenizer: Any
    added: tuple[str, ...]

    @cached_property
    def breaks(self) -> Tensor:
        """Of each token whether its text starts a new line."""
        count = max(self.tokenizer.get_vocab().values()) + 1
        pieces = self.tokenizer.batch_decode([[token] for token in range(count)], skip_special_tokens=True)
        return torch.tensor([piece.lstrip(" ").startswith("\n") for piece in pieces])

    @cached_property
    def turn_end(self) -> int:
        """The token that ends a reply in the chat template (`<|im_end|>`, `<|eot_id|>`), else the end of text."""
        if self.tokenizer.chat_template:
            turns = [{"role": "user", "content": "?"}, {"role": "assistant", "content": SLOT}]
            behind = self.ids(self._rendered(turns, reply=False).rpartition(SLOT)[2])
            marks = [i for i in behind.tolist() if i in self.tokenizer.added_tokens_decoder]
            if marks:
                return marks[0]
        if self.tokenizer.eos_token_id is None:
            raise ValueError(
                f"the tokenizer of backbone {self.name!r} has no token that ends an answer; set its eos_token"
            )
        return self.tokenizer.eos_token_id

    @cached_property
    def marks(self) -> tuple[str, str]:
        """What stands before and behind the thoughts in a message; empty where the tokenizer has nothing for it."""
        vocabulary = self.tokenizer.get_vocab()
        return next(((begin, end) for begin, end in MARKS if begin in vocabulary and end in vocabulary), ("", ""))

    @cached_property
    def _anchor(self) -> str:
        """A token to read pieces of text behind, where the tokenizer puts a blank before what stands first."""
        eos = self.tokenizer.eos_token or ""
        behind, alone = self._first(f"{eos}a").tolist(), self._first("a").tolist()
        return eos if behind[:1] == [self.tokenizer.eos_token_id] and behind[1:] != alone else ""

    def _first(self, text: str) -> Int[Tensor, "_"]:
        """Token ids of a text that nothing stands before, nothing added; it is cut at each `BREAK`."""
        if BREAK in text:
            head, *rest = text.split(BREAK)
            return torch.cat([self._first(head), *(self.ids(piece) for piece in rest)])
        # the tokenizer underneath, where there is one: the call above it makes masks too and takes three times as long
        if self.tokenizer.is_fast:
            ids = self.tokenizer.backend_tokenizer.encode(text, add_special_tokens=False).ids
        else:
            ids = self.tokenizer(text, add_special_tokens=False)["input_ids"]
        return torch.tensor(ids, dtype=torch.long)

    def ids(self, text: str) -> Int[Tensor, "_"]:
        """Token ids of a piece of text as in the middle of a longer one, nothing added.

        Names of control tokens become those tokens; data, which must not, goes through `plain_ids`.
        """
        return self._first(self._anchor + text)[1:] if self._anchor else self._first(text)

    def plain_ids(self, text: str) -> Int[Tensor, "_"]:
        """The same of data: what looks like a control token is read as text."""
        return self.ids(self.plain(text))

    def plain(self, text: str) -> str:
        """Data as `ids` and chat templates may take it: in the name of each control token is a `BREAK`."""
        return broken(text, self._controls)

    @cached_property
    def _controls(self) -> tuple[str, ...]:
        return control_names(self.tokenizer, [*(mark for pair in MARKS for mark in pair), *self.added])

    def chat(self, message: str, thinking: bool = False) -> str:
        """A user's message as the model reads it, up to where its reply starts.

        By the chat template (its switch for thinking set, date pinned so that inputs do not change overnight) or,
        without one, the plain message after the begin-of-text token. Control tokens are the template's alone: in the
        message their names have a `BREAK`, at which `ids` cuts.
        """
        message = self.plain(message)
        if not self.tokenizer.chat_template:
            return (self.tokenizer.bos_token or "") + message
        return self._rendered([{"role": "user", "content": message}], reply=True, thinking=thinking)

    def _rendered(self, turns: list[dict[str, str]], reply: bool, thinking: bool = False) -> str:
        """A conversation as text; with `reply`, the header of the next one is there."""
        try:
            return self.tokenizer.apply_chat_template(
                turns, chat_template=CLOCK + self.tokenizer.get_chat_template(), tokenize=False,
                add_generation_prompt=reply, enable_thinking=thinking, date_string="26 Jul 2024",
            )  # fmt: skip
        except (TemplateError, ValueError, TypeError) as error:
            reason = " ".join(str(error).split()).rstrip(".")
            raise ValueError(
                f"the chat template of backbone {self.name!r} cannot write a plain message ({reason}); set another "
                "one on its tokenizer (chat_template), or none"
            ) from error

    def around(self, message: str, reply: str = "") -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """Ids before and after the slot of a user message, marks of the slot and generation prompt included.

        `message` holds `SLOT` once and is rendered as in `chat`; `reply` is how the answer starts. Where neither that
        nor a chat template says how, it starts on a new line.
        """
        if message.count(SLOT) != 1:
            raise ValueError(
                f"a message must hold the slot character U+E000 once, this one holds it {message.count(SLOT)} times; "
                "take it out of the question and the instruction"
            )
        text, reply = self.chat(message), self.plain(reply)
        headless = not self.tokenizer.chat_template or text.endswith(SLOT)
        parts = (text + (reply or "\n" * headless)).split(SLOT)
        if len(parts) != 2:
            raise ValueError(
                f"the chat template of backbone {self.name!r} writes a message {len(parts) - 1} times, it must do so "
                "once; set another one on its tokenizer (chat_template), or none"
            )
        begin, end = self.marks
        return self._first(parts[0] + begin), self.ids(end + parts[1])

    def in_reply(
        self, message: str, reply: str = "", marks: bool | tuple[str, str] = True
    ) -> tuple[Int[Tensor, "_"], Int[Tensor, "_"]]:
        """Ids before and after a slot that opens the reply to a user message, with the slot's marks unless told not to.

        `reply` is what follows the slot. A begin mark that the chat template writes itself is not written twice. Marks
        that are given as texts are pieces by themselves: their ids merge with nothing.
        """
        given = isinstance(marks, tuple)
        begin, end = marks if isinstance(marks, tuple) else self.marks if marks else ("", "")
        text = self.chat(message, thinking=bool(marks))
        opened = bool(begin) and text.rstrip().endswith(begin)
        behind = end + (self.plain(reply) or "\n" * (not self.tokenizer.chat_template))
        if given and not opened:
            return torch.cat([self._first(text), self.ids(begin)]), self.ids(behind)
        return self._first(text if opened else text + begin), self.ids(behind)


def control_names(tokenizer: Any, marks: Sequence[str]) -> tuple[str, ...]:
    """What data must not say: the tokenizer's special tokens, and those of `marks` that it takes as one token.

    A token of one character cannot be broken, and stays what it is.
    """
    added = tokenizer.added_tokens_decoder.values()
    known = {token.content for token in added}
    names = {token.content for token in added if token.special} | {mark for mark in marks if mark in known}
    return tuple(sorted((name for name in names if len(name) > 1), key=lambda name: (-len(name), name)))


def broken(text: str, names: Sequence[str]) -> str:
    """The text with a `BREAK` behind the first character of each name, until there is none left."""
    if not any(name in text for name in names):
        return text
    pattern = re.compile("|".join(re.escape(name) for name in names))
    while (found := pattern.sub(lambda match: match[0][0] + BREAK + match[0][1:], text)) != text:
        text = found
    return text
