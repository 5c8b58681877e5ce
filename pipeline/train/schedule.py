"""Which rows are read at which step, by which rank.

In: a packed table. Out: for each step of a run its rows: a function of (seed, step, rank, number of ranks) alone, so that the
data position is one integer, and a resumed run, on however many ranks, neither skips nor repeats an example.
"""

import random
from collections import OrderedDict
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.errors import DataError
from pipeline.records import PackedRow
from pipeline.train.packing import EMPTY_ROW

GROUPS_KEPT = 8
"""Row groups of a table that are kept in memory."""


class PackedTable:
    """A table of packed rows in a local folder, of which the rows that are asked for are read, not all."""

    def __init__(self, folder: Path) -> None:
        self._files = [pq.ParquetFile(path, memory_map=True) for path in sorted(folder.glob("*.parquet"))]
        groups = [(file, group) for file in self._files for group in range(file.num_row_groups)]
        self._groups = [(file, group) for file, group in groups if file.metadata.row_group(group).num_rows]
        if not self._groups:
            raise DataError(
                f"{str(folder)!r} holds no packed rows: delete 5_train, so that the examples are packed again"
            )
        counts = [file.metadata.row_group(group).num_rows for file, group in self._groups]
        self._starts = np.concatenate([[0], np.cumsum(counts)])
        self._kept: OrderedDict[int, pa.Table] = OrderedDict()
        sizes = [file.read(["lengths", "target_tokens"]) for file in self._files]
        table = pa.concat_tables(sizes)
        lengths = table["lengths"].to_pylist()
        self.targets = table["target_tokens"].to_numpy()
        """Target tokens of each row."""
        self.tokens = np.array([sum(each) for each in lengths])
        """Tokens of each row."""
        self.squares = np.array([sum(length * length for length in each) for each in lengths])
        """The sum of the squares of its examples' lengths: what attention costs."""

    def __len__(self) -> int:
        return int(self._starts[-1])

    def __getitem__(self, index: int) -> PackedRow:
        place = int(np.searchsorted(self._starts, index, side="right")) - 1
        if place not in self._kept:
            file, group = self._groups[place]
            self._kept[place] = file.read_row_group(group)
            if len(self._kept) > GROUPS_KEPT:
                self._kept.popitem(last=False)
        self._kept.move_to_end(place)
        return PackedRow(**self._kept[place].slice(index - int(self._starts[place]), 1).to_pylist()[0])


@dataclass(frozen=True)
class Batch:
    """Tokens of a global batch, its target tokens, and the squares of its examples' lengths."""

    tokens: int
    targets: int
    squares: int


def steps_of(rows: int, *, rows_per_step: int, epochs: int) -> int:
    """Optimizer steps of a stage."""
    return -(-rows * epochs // rows_per_step)


class Schedule:
    """The order in which the rows of a table are read.

    The epochs, each in its own order, make one stream without gaps; step s reads the next `rows_per_step` of it, and reader
    r of n every n-th of these. Only the last step may have fewer.
    """

    def __init__(self, table: PackedTable, *, rows_per_step: int, epochs: int, seed: int) -> None:
        self._table = table
        self._rows_per_step, self._epochs, self._seed = rows_per_step, epochs, seed
        self.steps = steps_of(len(table), rows_per_step=rows_per_step, epochs=epochs)

    @cached_property
    def _stream(self) -> list[int]:
        stream: list[int] = []
        for epoch in range(self._epochs):
            order = list(range(len(self._table)))
            random.Random(f"{self._seed} {epoch}").shuffle(order)
            stream += order
        return stream

    def indices(self, step: int) -> list[int]:
        """The table's rows in a global batch."""
        return self._stream[step * self._rows_per_step : (step + 1) * self._rows_per_step]

    def batch(self, step: int) -> Batch:
        """What a global batch holds: known to every rank without asking the others."""
        rows = self.indices(step)
        table = self._table
        return Batch(int(table.tokens[rows].sum()), int(table.targets[rows].sum()), int(table.squares[rows].sum()))

    def rows_for_each(self, readers: int) -> int:
        """Of every step, empty ones among them."""
        return -(-self._rows_per_step // readers)

    def rows(self, step: int, reader: int, readers: int) -> list[PackedRow]:
        """A reader's rows: as many for each, filled up with empty ones."""
        mine = [self._table[index] for index in self.indices(step)[reader::readers]]
        return mine + [EMPTY_ROW] * (self.rows_for_each(readers) - len(mine))
