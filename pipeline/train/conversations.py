"""Conversations as token ids: the prompt as a server will send it, and which tokens are to be learned.

In: an `Example`, a tokenizer. Out: `Tokenized`. Refuses templates that training and serving would read differently.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from pipeline.errors import DataError
from pipeline.records import Example, Message
from pipeline.train.marker import CHECK_PROMPT


@dataclass(frozen=True)
class Tokenized:
    """An example as token ids (tokens,), and whether each is to be learned (tokens,)."""

    example_id: str
    ids: npt.NDArray[np.int32]
    targets: npt.NDArray[np.bool_]


def check_template(tokenizer: Any, vocabulary: int, name: str) -> None:
    """Render, tokenize and decode a conversation: refuse a tokenizer that training and serving would read differently."""
    if not tokenizer.chat_template:
        raise DataError(
            f"the tokenizer of {name!r} has no chat template: give an instruct model, or add chat_template.jinja"
        )
    if len(tokenizer) > vocabulary:
        raise DataError(
            f"the tokenizer of {name!r} has {len(tokenizer)} tokens, its model {vocabulary}: give a model with its own tokenizer"
        )
    user = [Message("user", CHECK_PROMPT)]
    if _render(tokenizer, user, prompt=True) == _render(tokenizer, user, prompt=False):
        raise DataError(
            f"the chat template of {name!r} has no generation prompt: give one that honours add_generation_prompt"
        )
    example = Example("template-check", "stage1", "", "", [*user, Message("assistant", "<think>\n1+1\n</think>\n\n2")])
    tokens, rendered = tokenize(example, tokenizer), _render(tokenizer, example.messages, prompt=False)
    read = tokenizer.decode(tokens.ids, clean_up_tokenization_spaces=False)
    if not rendered.startswith(read):
        differ = next(index for index, (a, b) in enumerate(zip(read + "\0", rendered + "\1", strict=False)) if a != b)
        raise DataError(
            f"the tokenizer of {name!r} reads the template's {rendered[differ : differ + 40]!r} as {read[differ : differ + 40]!r}: "
            "give a model whose tokens decode to what it was given"
        )
    if tokens.ids[-1] != tokenizer.eos_token_id:
        raise DataError(
            f"the tokenizer of {name!r} ends an assistant turn with the token {tokens.ids[-1]}, not with its eos_token "
            f"{tokenizer.eos_token!r} ({tokenizer.eos_token_id}): make it one special token"
        )


def check_ids(tokenizer: Any) -> list[int]:
    """`CHECK_PROMPT` as training reads it."""
    return _encode(tokenizer, _render(tokenizer, [Message("user", CHECK_PROMPT)], prompt=True))


def tokenize(example: Example, tokenizer: Any) -> Tokenized:
    """Token ids of a conversation; the targets are each assistant turn with its end-of-turn token.

    Prompt and answer are tokenized apart, as in generation, where the answer follows the prompt's ids.
    """
    ids: list[int] = []
    targets: list[bool] = []
    done = ""  # the rendered text that `ids` stands for
    for index, message in enumerate(example.messages):
        if message.role != "assistant":
            continue
        prompt = _render(tokenizer, example.messages[:index], prompt=True)
        turn = _after(prompt, _render(tokenizer, example.messages[: index + 1], prompt=False), example)
        said = _until_end_of_turn(turn, tokenizer, message, example)
        answer = _encode(tokenizer, said)
        context = _encode(tokenizer, _after(done, prompt, example))
        ids += context + answer
        targets += [False] * len(context) + [True] * len(answer)
        done = prompt + said
    if not ids:
        raise DataError(f"example {example.example_id!r} has no assistant turn: remove it from the training set")
    return Tokenized(example.example_id, np.array(ids, np.int32), np.array(targets, np.bool_))


def _render(tokenizer: Any, messages: Sequence[Message], *, prompt: bool) -> str:
    chat = [{"role": message.role, "content": message.content} for message in messages]
    return str(tokenizer.apply_chat_template(chat, tokenize=False, add_generation_prompt=prompt))


def _encode(tokenizer: Any, text: str) -> list[int]:
    return list(tokenizer(text, add_special_tokens=False)["input_ids"])


def _after(start: str, text: str, example: Example) -> str:
    """What follows `start` in a longer rendering of the same conversation."""
    if not text.startswith(start):
        raise DataError(
            f"the chat template changes earlier turns: example {example.example_id!r} renders {start[-60:]!r} first and "
            f"{text[max(0, len(start) - 60) : len(start)]!r} later: give a model whose template keeps them"
        )
    return text[len(start) :]


def _until_end_of_turn(turn: str, tokenizer: Any, message: Message, example: Example) -> str:
    """The assistant's turn up to its end-of-turn token, without what the template puts after it."""
    content = message.content.strip()
    text, end, _ = turn.rpartition(tokenizer.eos_token or "\0")
    if not end:
        raise DataError(
            f"the chat template ends an assistant turn with {turn[-20:]!r}, which lacks the end-of-turn token "
            f"{tokenizer.eos_token!r}: a student would never stop; mend the template or the tokenizer's eos_token"
        )
    if text.strip() != content:
        raise DataError(
            f"the chat template changes what the assistant says: {content[:60]!r} of example {example.example_id!r} becomes "
            f"{text.strip()[:60]!r}: give a model whose template keeps it"
        )
    return text + end
