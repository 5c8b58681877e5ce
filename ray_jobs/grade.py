"""`longthought grade`: answers graded row by row, without a run: a file of them, or the generations of a run."""

import itertools
import json
import sys
from collections import Counter, deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, TextIO

from pipeline import storage
from pipeline.config import endpoint_from_environment
from pipeline.errors import DataError
from pipeline.evaluate.conventions import check, grading
from pipeline.grading import Grade, Grader
from pipeline.records import Convention
from pipeline.storage import Place

AHEAD = 16
"""Rows under way for each worker: enough to keep it busy, few enough to stream."""


@dataclass
class Tally:
    """What became of the rows under one convention. `against` counts (label, called correct)."""

    verdicts: Counter[str] = field(default_factory=Counter)
    against: Counter[tuple[bool, bool]] = field(default_factory=Counter)
    differing: int = 0
    """Rows right under this convention and wrong under the first one, or the other way round."""


def grade(answers: str, conventions: Sequence[Convention], workers: int) -> None:
    """Print a line of JSON for each row and convention, in order, and a summary on stderr.

    `answers` is a file of rows `{id, gold, response}`, `-`, or a table of generations. Where rows have a `label` (true
    where the response is right), the summary says how well the verdicts agree.
    """
    check(conventions)
    tallies = {convention: Tally() for convention in conventions}
    with Grader(workers) as grader, ThreadPoolExecutor(workers) as pool:
        functions = [grading(convention, grader) for convention in tallies]
        under_way: deque[tuple[dict[str, Any], Future[list[Grade]]]] = deque()

        def grades(row: dict[str, Any]) -> list[Grade]:
            return [function(row["gold"], row["response"]) for function in functions]

        def finish() -> None:
            row, future = under_way.popleft()
            found = dict(zip(tallies, future.result(), strict=True))
            _count(row, found, tallies)
            for convention, each in found.items():
                print(json.dumps(_line(row["id"], each, convention if len(tallies) > 1 else None)), flush=True)

        try:
            for row in _rows(answers):
                under_way.append((row, pool.submit(grades, row)))
                while under_way[0][1].done() or len(under_way) >= AHEAD * workers:
                    finish()
                    if not under_way:
                        break
        finally:  # a bad line costs none of the good ones before it
            while under_way:
                finish()
    print(_summary(tallies), file=sys.stderr)


def _line(row_id: Any, grade: Grade, convention: Convention | None) -> dict[str, Any]:
    return {
        "id": row_id,
        **({"convention": convention} if convention else {}),
        "verdict": grade.verdict,
        "extracted": grade.extracted,
        "matched_by": grade.matched_by,
        "seconds": round(grade.seconds, 6),
    }


def _count(row: dict[str, Any], found: dict[Convention, Grade], tallies: dict[Convention, Tally]) -> None:
    right = {convention: grade.verdict == "correct" for convention, grade in found.items()}
    first = next(iter(right.values()))
    for convention, tally in tallies.items():
        tally.verdicts[found[convention].verdict] += 1
        tally.differing += right[convention] != first
        if row.get("label") in (True, False):
            tally.against[bool(row["label"]), right[convention]] += 1


# --- rows -------------------------------------------------------------------------------------------


def _rows(answers: str) -> Iterator[dict[str, Any]]:
    """The rows of a file or a table, each with `id`, `gold` and `response`."""
    place = Place(answers, endpoint_from_environment())
    if answers != "-" and (answers.endswith(".parquet") or place.is_folder()):
        yield from _rows_of_table(place)
    else:
        with _opened(answers) as lines:
            yield from _rows_of_lines(lines, answers)


def _rows_of_table(table: Place) -> Iterator[dict[str, Any]]:
    """The generations of a run, or any other Parquet with the columns answer and response; failed requests are none."""
    files = [table] if table.uri.endswith(".parquet") else table.files(".parquet")
    columns = {file: names for file in files if (names := set(storage.column_names(file)))}
    if not columns:
        raise DataError(f"{table.uri!r} holds no Parquet with rows; give a table of generations, or JSONL")
    for file, names in columns.items():
        for name in ("answer", "response"):
            if name not in names:
                has = ", ".join(sorted(names))
                raise DataError(
                    f"{file.uri!r} has no column {name!r}: it has {has}; give a table of generations, or JSONL"
                )
    numbers = itertools.count(1)
    for file, names in columns.items():
        wanted = names & {"generation_id", "id", "answer", "response", "status", "label"}
        for row, number in zip(storage.iter_dicts(file, sorted(wanted)), numbers, strict=False):
            if row.get("status") != "failed":
                row_id = row.get("generation_id", row.get("id", number))
                yield {"id": row_id, "gold": row["answer"], "response": row["response"], "label": row.get("label")}


def _opened(answers: str) -> TextIO:
    if answers == "-":
        return sys.stdin
    try:
        return Path(answers).open(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"cannot read {answers!r}: {error.strerror}; give a JSONL file, a table of generations, or - for standard input"
        ) from None


def _rows_of_lines(lines: TextIO, answers: str) -> Iterator[dict[str, Any]]:
    """The rows of a JSONL file. One that is none is the user's mistake, with its line."""
    number = 0
    try:
        for number, line in enumerate(lines, 1):
            if not line.strip():
                continue
            row = json.loads(line)
            if isinstance(row, dict) and type(row.get("gold")) in (int, float):
                row["gold"] = str(row["gold"])
            for name in ("gold", "response"):
                if not isinstance(row, dict) or not isinstance(row.get(name), str):
                    raise DataError(f"{answers}, line {number}: {name!r} is no text: rows are {{id, gold, response}}")
            yield {"id": number, **row}
    except UnicodeDecodeError:
        raise DataError(f"{answers}, line {number + 1}: is no UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{answers}, line {number}: is no JSON ({getattr(error, 'msg', 'too deep')})") from None


# --- the summary ------------------------------------------------------------------------------------


def _summary(tallies: dict[Convention, Tally]) -> str:
    """Of one convention a line, of several a table."""
    first = next(iter(tallies))
    total = tallies[first].verdicts.total()
    if len(tallies) == 1:
        verdicts = tallies[first].verdicts.most_common()
        counts = ", ".join(f"{count} {verdict} ({count / total:.1%})" for verdict, count in verdicts)
        agreement = f"; against the labels: {_agreement(tallies[first])}" if tallies[first].against else ""
        return f"{total} rows: {counts or 'nothing to grade'}{agreement}"
    labelled = any(tally.against for tally in tallies.values())
    head = ["convention", "accuracy", "correct", "unparsable", "timeout", f"unlike {first}"]
    rows = [head + ["against the labels"] * labelled]
    for convention, tally in tallies.items():
        right, unparsable, timeout = (tally.verdicts[name] for name in ("correct", "unparsable", "timeout"))
        row = [convention, f"{right / max(1, total):.1%}", *map(str, (right, unparsable, timeout, tally.differing))]
        rows.append(row + [_agreement(tally)] * labelled)
    widths = [max(map(len, column)) for column in zip(*rows, strict=True)]
    lines = ("  ".join(map(str.ljust, row, widths)).rstrip() for row in rows)
    return "\n".join([f"{total} rows", *lines])


def _agreement(tally: Tally) -> str:
    """How often "correct" is right, and how much of what is right is called so."""
    against = tally.against
    found, right = against[True, True] + against[False, True], against[True, True] + against[True, False]
    precision = f"{against[True, True] / found:.4f}" if found else "-"
    recall = f"{against[True, True] / right:.4f}" if right else "-"
    return f"precision {precision}, recall {recall}"
