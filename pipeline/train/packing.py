"""Examples into full rows.

In: `Tokenized` examples. Out: `PackedRow`s of at most so many tokens. Nothing is cut, and no example reaches over two rows.
"""

import bisect
from collections.abc import Sequence

import numpy as np
import numpy.typing as npt

from pipeline.records import PackedRow
from pipeline.train.conversations import Tokenized

IGNORED = -100
"""The label of a position from which nothing is to be learned."""

EMPTY_ROW = PackedRow(example_ids=[], lengths=[1], input_ids=[0], labels=[IGNORED], target_tokens=0)
"""What a rank computes where a step has no row for it: every rank must take part in the collectives."""


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
    return PackedRow(
        example_ids=[example.example_id for example in examples],
        lengths=[len(example.ids) for example in examples],
        input_ids=np.concatenate([example.ids for example in examples]).tolist(),
        labels=np.concatenate([_labels(example) for example in examples]).tolist(),
        target_tokens=sum(int(example.targets[1:].sum()) for example in examples),
    )


def _labels(example: Tokenized) -> npt.NDArray[np.int32]:
    """The token to predict from each position; nothing follows the last one."""
    following = np.where(example.targets[1:], example.ids[1:], np.int32(IGNORED))
    return np.append(following, np.int32(IGNORED))
