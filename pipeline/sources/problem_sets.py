"""A set of the config as rows, and a benchmark as problems.

In: a `Source` or `Benchmark`. Out: its files, and `RawRow`s or `Problem`s.
"""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, replace

from pipeline import hub
from pipeline.config import Benchmark, Source
from pipeline.errors import DataError
from pipeline.grading import gsm8k_answer
from pipeline.records import Problem, problem_id
from pipeline.sources.formats import FORMATS, columns_of, rows_of
from pipeline.sources.selection import deselected
from pipeline.sources.values import as_text
from pipeline.storage import Place

LONGEST = {"problem": 100_000, "answer": 100_000, "solution": 1_000_000}
"""In characters. No contest has one of a tenth of that, no model's context is longer, and every request is billed."""


@dataclass(frozen=True)
class RawRow:
    """A row of a source. `place` is file and row number; `subset` the row's own sub-source.

    `error` says why it could not be read, `deselected` why it is not among the rows that the config asks for.
    """

    place: str
    problem: str | None
    answer: str | None
    solution: str | None
    level: str | None
    subset: str | None = None
    error: str | None = None
    deselected: str | None = None


def files_of(source: Source | Benchmark, endpoint: str | None) -> list[Place]:
    """The set's files, on the hub at the commit that its revision is now.

    Raises DataError for a missing one, an unknown format, or a missing column.
    """
    named = _named(Place(hub.pinned(source.path) if hub.is_hub(source.path) else source.path, endpoint))
    if not named:
        raise DataError(f"{source.name}: {source.path!r} does not exist: correct its path")
    files = [file for file in named if file.uri.endswith(FORMATS)]
    if not files:
        raise DataError(f"{source.name}: {source.path!r} is no file or folder of {', '.join(FORMATS)}: convert it")
    _check_columns(source, files)
    return files


def _named(place: Place) -> list[Place]:
    """The files that a path names: itself, all in a folder, or those that a pattern with `*` matches."""
    parts = place.uri.split("/")
    pattern = next((index for index, part in enumerate(parts) if "*" in part), None)
    if pattern is None:
        if not place.exists():
            return []
        return place.files() if place.is_folder() else [place]
    folder = Place("/".join(parts[:pattern]) or ".", place.endpoint)
    matched = re.compile(re.escape("/".join(parts[pattern:])).replace(r"\*", "[^/]*"))
    return [file for file in folder.files() if matched.fullmatch(file.uri.removeprefix(f"{folder.uri}/"))]


def _check_columns(source: Source | Benchmark, files: list[Place]) -> None:
    """A column must be in one of the files: a part of a set may be empty, or leave out what is null in it."""
    names = sorted(set().union(*map(columns_of, files)))
    where = f"{source.name}: {source.path!r}"
    if not names:
        raise DataError(f"{where} has no rows: give a problem set that is not empty")
    has = f"(it has {', '.join(names)})"
    given = source.columns.model_fields_set
    for field, column in source.columns:
        if column not in (None, *names) and (field in ("problem", "answer") or field in given):
            raise DataError(f"{where} has no column {column!r} for {field!r} {has}: set the source's columns.{field}")
    for column in source.where if isinstance(source, Source) else ():
        if column not in names:
            raise DataError(f"{where} has no column {column!r} {has}: correct the source's where")


def origin_of(source: Source | Benchmark, file: Place) -> str:
    """Where the rows of a file come from, as it is recorded with each of them."""
    if isinstance(source, Source) and source.origin is not None:
        return source.origin
    pinned = hub.repository_and_commit(file.uri)
    return "@".join(pinned) if pinned else source.path


def read(file: Place, source: Source | Benchmark) -> Iterator[RawRow]:
    """The rows of a file, one at a time, those that cannot be read or are not asked for among them."""
    where = source.where if isinstance(source, Source) else {}
    columns = dict(source.columns)
    for number, row in rows_of(file, {*columns.values(), *where} - {None}):
        place = f"{file.uri}:{number}"
        if isinstance(row, str):
            yield RawRow(place, None, None, None, None, error=row)
            continue
        texts = {
            field: None if column is None else as_text(row.get(column), "\n\n" if field == "solution" else ", ")
            for field, column in columns.items()
        }
        error = next((error for field, text in texts.items() if (error := _too_long(field, text))), None)
        if error:
            yield RawRow(place, None, None, None, None, error=error)
        else:
            yield RawRow(place, **texts, deselected=deselected(row, where))


def _too_long(field: str, text: str | None) -> str | None:
    if text is None or len(text) <= LONGEST.get(field, len(text)):
        return None
    return f"{field} of {len(text):,} characters, more than {LONGEST[field]:,}"


def read_benchmark(benchmark: Benchmark, files: Iterable[Place]) -> list[Problem]:
    """The problems of a benchmark in its files, in their order.

    Raises DataError where one lacks its text or answer, or rows are missing.
    """
    problems = [_problem(row, benchmark) for file in files for row in read(file, benchmark)]
    if benchmark.problems not in (None, len(problems)):
        raise DataError(
            f"benchmark {benchmark.name} has {len(problems)} problems, the config expects {benchmark.problems}"
        )
    return list(_with_ids_of_their_own(problems))


def _with_ids_of_their_own(problems: Iterable[Problem]) -> Iterator[Problem]:
    """A problem that stands in a benchmark twice counts twice."""
    met: Counter[str] = Counter()
    for problem in problems:
        again = met[problem.problem_id]
        met[problem.problem_id] += 1
        yield replace(problem, problem_id=f"{problem.problem_id}-{again + 1}") if again else problem


def _problem(row: RawRow, benchmark: Benchmark) -> Problem:
    if row.error or not row.problem or not row.answer:
        raise DataError(f"benchmark {benchmark.name}: {row.place}: {row.error or 'no problem or no answer'}")
    return Problem(
        problem_id=problem_id(row.problem),
        problem=row.problem,
        answer=gsm8k_answer(row.answer) or row.answer,
        answer_type="text",
        solution=row.solution,
        source=benchmark.name,
        license="unknown",
        level=row.level,
        subset=row.subset,
    )
