"""Rows of a table found by their ids, for millions of them: columns only, which all workers of a node share in Ray's store.

In: a table with a column of ids. Out: for other ids the rows that have them.
"""

import numpy as np
import pyarrow as pa


class ById:
    """A table in the order of its ids, so that they are found by bisection: nothing is made when it is read from Ray's store."""

    def __init__(self, table: pa.Table, key: str) -> None:
        """`key` is the column of the ids, texts without a NUL. Of rows of the same id the first counts."""
        ids = _bytes(table[key])
        order = np.argsort(ids, kind="stable")
        self._ids, self._rows = ids[order], wide(table).take(order)

    def has(self, ids: pa.ChunkedArray) -> pa.Array:
        """Of each of these ids, shape [n], whether there is a row with it."""
        return pa.array(self._find(ids)[1], pa.bool_())

    def rows(self, ids: pa.ChunkedArray) -> pa.Table:
        """A row for each of these ids, in their order; one of nulls where there is none."""
        places, there = self._find(ids)
        return self._rows.take(pa.array(places, mask=~there))

    def _find(self, ids: pa.ChunkedArray) -> "tuple[np.ndarray, np.ndarray]":
        wanted = _bytes(ids)
        places = np.searchsorted(self._ids, wanted)
        there = places < len(self._ids)
        there[there] = self._ids[places[there]] == wanted[there]
        return places, there


def _bytes(ids: pa.ChunkedArray) -> "np.ndarray":
    return np.array([text.encode() for text in ids.to_pylist()], dtype=np.bytes_)


def wide(table: pa.Table) -> pa.Table:
    """The same in one piece, whose columns may hold more than 2 GiB each."""
    large = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}
    fields = [field.with_type(large.get(field.type, field.type)) for field in table.schema]
    return table.cast(pa.schema(fields)).combine_chunks()
