"""Conversations into packed training rows, and the order in which they are read.

In: `Example`s, a tokenizer. Out: `PackedRow`s of at most `max_length` tokens, and for each step of a
run the rows of each rank: a function of (seed, step, rank, world size) alone, so that the data position
is one integer. Reading and writing the tables is left to the caller.
"""

import bisect
import random
from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from pipeline.errors import ConfigError, DataError
from pipeline.records import Example, Message, PackedRow

IGNORED = -100
"""The label of a position from which nothing is to be learned."""

EMPTY_ROW = PackedRow(input_ids=[0], position_ids=[0], labels=[IGNORED], target_tokens=0, examples=0)
"""What a rank computes where the last step has no row for it: every rank must take part in the collectives."""


# --- rendering and labels -------------------------------------------------------------------------


@dataclass(frozen=True)
class Tokenized:
    """An example as token ids; `targets[i]` says whether token i is to be learned."""

    example_id: str
    ids: list[int]
    targets: list[bool]


def check_positions(setting: str, length: int, model_config: Any, name: str) -> None:
    """Refuse sequences longer than the model's positions. `setting` is the name of what asks for so many tokens."""
    positions = getattr(model_config, "max_position_embeddings", None)
    if positions is not None and length > positions:
        raise ConfigError(
            f"{setting} is {length}, beyond the {positions} positions of {name!r}: set {setting} to at "
            f"most {positions}, or give a model whose config.json has more (raise rope_theta and max_position_embeddings)"
        )


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
    user = [Message("user", "What is 1+1?")]
    if _render(tokenizer, user, prompt=True) == _render(tokenizer, user, prompt=False):
        raise DataError(
            f"the chat template of {name!r} has no generation prompt: give one that honours add_generation_prompt"
        )
    example = Example("template-check", "stage1", "", "", [*user, Message("assistant", "<think>\n1+1\n</think>\n\n2")])
    tokenize(example, tokenizer)


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
        answer = _encode(tokenizer, _until_end_of_turn(turn, tokenizer, message, example))
        context = _encode(tokenizer, _after(done, prompt, example))
        ids += context + answer
        targets += [False] * len(context) + [True] * len(answer)
        done = prompt + tokenizer.decode(answer)
    if not ids:
        raise DataError(f"example {example.example_id!r} has no assistant turn: remove it from the training set")
    return Tokenized(example.example_id, ids, targets)


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


# --- packing --------------------------------------------------------------------------------------


def pack(examples: Sequence[Tokenized], max_length: int) -> list[PackedRow]:
    """Fill rows of at most `max_length` tokens: best fit, the longest example first.

    Deterministic: depends on the examples alone, not on their order.
    """
    rows: list[list[Tokenized]] = []
    free: list[tuple[int, int]] = []  # (room left, row), in rising order
    for example in sorted(examples, key=lambda example: (-len(example.ids), example.example_id)):
        place = bisect.bisect_left(free, (len(example.ids), -1))
        room, row = free.pop(place) if place < len(free) else (max_length, len(rows))
        if row == len(rows):
            rows.append([])
        rows[row].append(example)
        bisect.insort(free, (room - len(example.ids), row))
    return [_packed(row) for row in rows]


def _packed(examples: Sequence[Tokenized]) -> PackedRow:
    row = PackedRow(input_ids=[], position_ids=[], labels=[], target_tokens=0, examples=len(examples))
    targets = 0
    for example in examples:
        row.input_ids.extend(example.ids)
        row.position_ids.extend(range(len(example.ids)))
        following = zip(example.ids[1:], example.targets[1:], strict=True)
        row.labels.extend([id_ if target else IGNORED for id_, target in following] + [IGNORED])
        targets += sum(example.targets[1:])
    return PackedRow(row.input_ids, row.position_ids, row.labels, targets, row.examples)


# --- reading --------------------------------------------------------------------------------------


def steps_of(rows: int, *, rows_per_step: int, epochs: int) -> int:
    """Optimizer steps of a stage."""
    return -(-rows * epochs // rows_per_step)


class Schedule:
    """Which rows of a packed table are read at which step, by which rank.

    The epochs, each in its own order, make one stream without gaps; step s reads the next
    `rows_per_step` of it, and rank r of n every n-th of these. Only the last step may have fewer.
    """

    def __init__(self, table: pa.Table, *, rows_per_step: int, epochs: int, seed: int) -> None:
        self._table = table.combine_chunks()
        self._rows_per_step, self._epochs, self._seed = rows_per_step, epochs, seed
        self.steps = steps_of(table.num_rows, rows_per_step=rows_per_step, epochs=epochs)

    @cached_property
    def _stream(self) -> list[int]:
        stream: list[int] = []
        for epoch in range(self._epochs):
            order = list(range(self._table.num_rows))
            random.Random(f"{self._seed} {epoch}").shuffle(order)
            stream += order
        return stream

    def indices(self, step: int) -> list[int]:
        """The table's rows in a global batch."""
        return self._stream[step * self._rows_per_step : (step + 1) * self._rows_per_step]

    def tokens(self, step: int) -> tuple[int, int]:
        """All tokens and target tokens of a global batch: known to every rank without asking the others."""
        batch = self._table.take(self.indices(step))
        tokens = pc.sum(pc.list_value_length(batch["input_ids"])).as_py()
        return int(tokens), int(pc.sum(batch["target_tokens"]).as_py())

    def rows(self, step: int, rank: int, world_size: int) -> list[PackedRow]:
        """This rank's rows: as many on every rank, filled up with empty ones in the last step."""
        mine = [
            PackedRow(**self._table.slice(index, 1).to_pylist()[0]) for index in self.indices(step)[rank::world_size]
        ]
        return mine + [EMPTY_ROW] * (self._rows_per_step // world_size - len(mine))
