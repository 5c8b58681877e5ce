"""Tables of records: folders of Parquet files.

In: a `Place` and a record type, or the names of columns. Out: records, dicts or Arrow tables; few rows in memory where few are
asked for.
"""

import dataclasses
import io
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline import records
from pipeline.errors import DataError, first_line
from pipeline.storage import s3
from pipeline.storage.place import BUCKET_ADVICE, NamedErrors, Place

R = TypeVar("R")
T = TypeVar("T")
READERS = 16
"""Files of a table that are read at a time: a bucket answers many as fast as one."""
PICKLED = "ray.data.arrow_pickled_object"
"""Ray Data's type for Python objects: where ray.data is imported, to look at a value of it runs code of whoever wrote the file."""


def write_rows(folder: Place, record: type, rows: Iterable[Any], rows_per_file: int = 50_000) -> int:
    """Write records as Parquet files into a folder, replacing what is there. Returns their number."""
    folder.delete()
    folder.make_folder()
    table = records.to_table(record, rows)
    for index, start in enumerate(range(0, max(table.num_rows, 1), rows_per_file)):
        target = folder / f"{index:05d}.parquet"
        with NamedErrors(target):
            pq.write_table(table.slice(start, rows_per_file), target.path, filesystem=target.filesystem)
    return int(table.num_rows)


def read_rows(folder: Place, record: type[R]) -> list[R]:
    """All records of a table, in the order of its files."""
    return records.from_table(record, read_table(folder, record))


def read_table(folder: Place, record: type) -> pa.Table:
    """A table of records as Arrow, in the order of its files."""
    return _joined(folder, _columns(record))


def read_columns(folder: Place, columns: Iterable[str]) -> pa.Table:
    """Some columns of any Parquet table, in the order of its files."""
    return _joined(folder, list(columns))


def read_slice(folder: Place, record: type[R], start: int, stop: int) -> list[R]:
    """The records `start` to `stop` of a table, in the order of its files; of others those of the same row groups are in memory."""
    found: list[R] = []
    for group, first, end in _groups(folder):
        if first >= stop:
            break
        if end > start:
            rows = group.read(_columns(record))
            found += records.from_table(record, rows.slice(max(start - first, 0), min(stop, end) - max(start, first)))
    return found


def write_table(file: Place, table: pa.Table, *, row_group: int) -> None:
    """Write a Parquet file, whole or not at all, with so many rows in each of its row groups."""
    data = io.BytesIO()
    pq.write_table(table, data, row_group_size=row_group)
    file.write(data.getvalue())


def count_rows(folder: Place, record: type) -> int:
    """How many records a table has."""
    return sum(_each(folder, _columns(record), lambda _, parquet: int(parquet.metadata.num_rows)))


def iter_dicts(folder: Place, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of any Parquet table, one at a time; some of their columns, or all."""
    wanted = None if columns is None else list(columns)
    for file in _files(folder):
        for batch in batches(file, wanted, 256):
            _require(wanted or [], batch.schema, folder)
            yield from batch.to_pylist()


def rows_at(folder: Place, positions: Iterable[int]) -> list[dict[str, Any]]:
    """The rows at some positions of any Parquet table, counted through its files; few others are in memory."""
    wanted = sorted(set(positions))
    found: list[dict[str, Any]] = []
    for group, start, stop in _groups(folder):
        if any(start <= position < stop for position in wanted):
            for batch in group.batches(None, 64):
                here = pa.array([at - start for at in wanted if start <= at < start + batch.num_rows], pa.int64())
                found += batch.take(here).to_pylist()
                start += batch.num_rows
    return found


def column_names(file: Place) -> list[str]:
    """The columns of a Parquet file; none where it has no rows."""
    with _opened(file) as parquet:
        return list(parquet.schema_arrow.names) if parquet.metadata.num_rows else []


def batches(file: Place, columns: Iterable[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet file, or all, so many rows at a time; no more than a row group is in memory."""
    wanted = None if columns is None else list(columns)
    with _opened(file) as parquet:
        for number in range(parquet.num_row_groups):
            yield from _RowGroup(file, parquet, number).batches(wanted, rows)


@dataclasses.dataclass(frozen=True)
class _RowGroup:
    """A row group of an open file. What S3 was too busy for is read again."""

    file: Place
    parquet: pq.ParquetFile
    number: int

    def read(self, columns: list[str]) -> pa.Table:
        with _named_errors(self.file):
            return s3.again(lambda: self.parquet.read_row_group(self.number, columns=columns, use_threads=False))

    def batches(self, columns: list[str] | None, rows: int) -> Iterator[pa.RecordBatch]:
        source: Iterator[pa.RecordBatch] | None = None
        given = 0

        def following() -> pa.RecordBatch | None:
            nonlocal source
            try:
                if source is None:
                    anew = self.parquet.iter_batches(rows, row_groups=[self.number], columns=columns, use_threads=False)
                    source = islice(anew, given, None)
                return next(source, None)
            except OSError:
                source = None
                raise

        while True:
            with _named_errors(self.file):
                batch = s3.again(following)
            if batch is None:
                return
            given += 1
            yield batch


def _groups(folder: Place) -> Iterator[tuple[_RowGroup, int, int]]:
    """The row groups of a table, each with its first row in the table and the one after its last."""
    start = 0
    for file in folder.files(".parquet"):
        with _opened(file) as parquet:
            for number in range(parquet.num_row_groups):
                stop = start + parquet.metadata.row_group(number).num_rows
                yield _RowGroup(file, parquet, number), start, stop
                start = stop


def _opened(file: Place) -> pq.ParquetFile:
    """To be used as a context manager."""
    with _named_errors(file):
        parquet = s3.again(lambda: pq.ParquetFile(file.path, filesystem=file.filesystem))
    _refuse_pickles(file, parquet.schema_arrow)
    return parquet


@contextmanager
def _named_errors(file: Place) -> Iterator[None]:
    try:
        with NamedErrors(file):
            yield
    except ValueError as error:
        if not isinstance(error, pa.ArrowInvalid):  # all that pyarrow says where Google's storage does not let it read
            raise DataError(f"cannot use {file.uri!r}: {first_line(error)}: check {BUCKET_ADVICE}") from None
        raise DataError(f"{file.uri!r} is no Parquet ({first_line(error)}): replace it") from None


def _refuse_pickles(place: Place, schema: pa.Schema) -> None:
    for field in schema:
        if _holds_pickles(field):
            raise DataError(f"the column {field.name!r} of {place.uri!r} holds pickled objects: write plain values")


def _holds_pickles(field: pa.Field) -> bool:
    kind = field.type
    if isinstance(kind, pa.BaseExtensionType):
        return bool(kind.extension_name == PICKLED) or _holds_pickles(pa.field(field.name, kind.storage_type))
    if (field.metadata or {}).get(b"ARROW:extension:name") == PICKLED.encode():
        return True  # the type as it is read where ray.data is not imported
    if pa.types.is_dictionary(kind):
        return _holds_pickles(pa.field(field.name, kind.value_type))
    return any(_holds_pickles(kind.field(index)) for index in range(kind.num_fields))


def _columns(record: type) -> list[str]:
    return [field.name for field in dataclasses.fields(record)]


def _files(folder: Place) -> list[Place]:
    """Those of a table; `folder` may be a single file too."""
    files = [folder] if folder.uri.endswith(".parquet") and not folder.is_folder() else folder.files(".parquet")
    if not files:
        raise DataError(f"{folder.uri!r} holds no Parquet files: run the stage that makes it")
    return files


def _each(folder: Place, columns: list[str], work: Callable[[Place, pq.ParquetFile], T]) -> list[T]:
    """What is found in each file of a table that must have these columns, in the order of its files; several are read at a time."""

    def found(file: Place) -> T:
        with _opened(file) as parquet:
            _require(columns, parquet.schema_arrow, folder)
            return work(file, parquet)

    with ThreadPoolExecutor(READERS) as threads:
        return list(threads.map(found, _files(folder)))


def _require(columns: Iterable[str], schema: pa.Schema, folder: Place) -> None:
    lacking = sorted(set(columns) - set(schema.names))
    if lacking:
        raise DataError(f"{folder.uri!r} lacks the column {lacking[0]!r}: redo the stage that makes it")


def _joined(folder: Place, columns: list[str]) -> pa.Table:
    def whole(file: Place, parquet: pq.ParquetFile) -> pa.Table:
        none = parquet.schema_arrow.empty_table().select(columns)
        groups = (_RowGroup(file, parquet, number) for number in range(parquet.num_row_groups))
        return pa.concat_tables([none, *(group.read(columns) for group in groups)])

    tables = _each(folder, columns, whole)
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowTypeError, pa.ArrowInvalid) as error:
        raise DataError(f"the files of {folder.uri!r} do not fit together ({first_line(error)}): redo it") from None
