"""Problem sets as files: JSONL, CSV and Parquet at any URI.

In: a `Source` (or `Benchmark`) of the config. Out: its files, and rows with our column names. What a row
means is left to `filters`.
"""

import csv
import io
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from pipeline.config import Benchmark, Columns, Source
from pipeline.errors import DataError
from pipeline.records import Problem, encodable, problem_id
from pipeline.storage import Place, iter_dicts

FORMATS = (".jsonl", ".csv", ".parquet")
MAX_CSV_FIELD = 1 << 28
"""The csv module stops at 131,072 characters, which solutions exceed."""


@dataclass(frozen=True)
class RawRow:
    """A row of a source. `place` is file and row number, `error` says why it could not be read."""

    place: str
    problem: str | None
    answer: str | None
    solution: str | None
    level: str | None
    error: str | None = None


def files_of(source: Source | Benchmark, endpoint: str | None) -> list[Place]:
    """The source's files. Raises DataError for a missing one, an unknown format, or a missing column."""
    place = Place(source.path, endpoint)
    if not place.exists():
        raise DataError(f"{source.name}: {source.path!r} does not exist: correct its path")
    files = [file for file in place.files() if file.uri.endswith(FORMATS)] if place.is_folder() else [place]
    if not files or not files[0].uri.endswith(FORMATS):
        raise DataError(f"{source.name}: {source.path!r} is no {', '.join(FORMATS)} file or folder of them")
    for file in files:
        _check_columns(source, file)
    return files


def _check_columns(source: Source | Benchmark, file: Place) -> None:
    names = _column_names(file)
    if names is None:
        raise DataError(f"{source.name}: {file.uri!r} has no rows: give a problem set that is not empty")
    wanted = {field: column for field, column in source.columns.model_dump().items() if column is not None}
    given = source.columns.model_fields_set
    for field, column in wanted.items():
        if column not in names and (field in ("problem", "answer") or field in given):
            raise DataError(
                f"{source.name}: {file.uri!r} has no column {column!r} for {field!r} (it has {', '.join(sorted(names))}): "
                f"set the source's columns.{field}"
            )


def _column_names(file: Place) -> set[str] | None:
    """The columns of the first row that can be read; None where there is no row."""
    if file.uri.endswith(".parquet"):
        try:
            with pq.ParquetFile(file.path, filesystem=file.filesystem) as parquet:
                return set(parquet.schema_arrow.names) if parquet.metadata.num_rows else None
        except pa.ArrowInvalid as error:
            raise DataError(f"{file.uri!r} is no Parquet ({str(error).splitlines()[0]}): replace it") from None
    for _, row in _dicts(file):
        if isinstance(row, dict):
            return set(row)
    return None


def read(file: Place, columns: Columns) -> Iterator[RawRow]:
    """The rows of a file, malformed ones with their error. Places count lines in JSONL, rows elsewhere, from 1."""
    for number, row in _dicts(file):
        place = f"{file.uri}:{number}"
        if isinstance(row, str):
            yield RawRow(place, None, None, None, None, error=row)
            continue
        values = {
            name: None if column is None or row.get(column) is None else encodable(str(row[column])).strip()
            for name, column in columns.model_dump().items()
        }
        yield RawRow(place, **values)


def _dicts(file: Place) -> Iterator[tuple[int, dict[str, Any] | str]]:
    """Rows as dicts, with their numbers; a string says why one is malformed."""
    if file.uri.endswith(".parquet"):
        yield from enumerate(iter_dicts(file), 1)
    elif file.uri.endswith(".csv"):
        csv.field_size_limit(MAX_CSV_FIELD)
        text = file.read().decode("utf-8-sig", "replace")  # Excel begins its files with a mark
        yield from enumerate(csv.DictReader(io.StringIO(text, newline="")), 1)
    else:
        for number, line in enumerate(file.read().splitlines(), 1):
            if line.strip():
                yield number, _json_row(line)


def _json_row(line: bytes) -> dict[str, Any] | str:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        return f"no JSON: {error}"
    return row if isinstance(row, dict) else encodable(f"no JSON object: {str(row)[:80]}")


def read_benchmark(benchmark: Benchmark, endpoint: str | None) -> list[Problem]:
    """A benchmark's problems, in file order. Raises DataError where one lacks its text or answer, or rows are missing."""
    problems = []
    for file in files_of(benchmark, endpoint):
        for row in read(file, benchmark.columns):
            if row.error or not row.problem or not row.answer:
                raise DataError(f"benchmark {benchmark.name}: {row.place}: {row.error or 'no problem or no answer'}")
            identity = problem_id(row.problem)
            problems.append(
                Problem(identity, row.problem, row.answer, "text", row.solution, benchmark.name, "unknown", row.level)
            )
    if benchmark.problems not in (None, len(problems)):
        raise DataError(
            f"benchmark {benchmark.name} has {len(problems)} problems, the config expects {benchmark.problems}"
        )
    return problems
