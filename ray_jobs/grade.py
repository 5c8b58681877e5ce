"""`longthought grade`: a file of answers graded, row by row, without a run."""

import json
import sys
from collections import Counter, deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, TextIO

from pipeline.errors import DataError
from pipeline.grading import Grade, Grader

AHEAD = 16
"""Rows under way for each worker: enough to keep it busy, few enough to stream."""


def grade(pairs: str, workers: int) -> None:
    """Print a line of JSON for each row `{id, gold, response}`, in order, and a summary on stderr.

    Where rows have a `label` (true where the response is right), the summary says how well the verdicts agree.
    """
    verdicts: Counter[str] = Counter()
    against: Counter[tuple[bool, bool]] = Counter()
    with _opened(pairs) as lines, Grader(workers) as grader, ThreadPoolExecutor(workers) as pool:
        under_way: deque[tuple[dict[str, Any], Future[Grade]]] = deque()

        def finish() -> None:
            row, future = under_way.popleft()
            found = future.result()
            verdicts[found.verdict] += 1
            if row.get("label") in (True, False):
                against[bool(row["label"]), found.verdict == "correct"] += 1
            made = {
                "id": row["id"],
                "verdict": found.verdict,
                "extracted": found.extracted,
                "matched_by": found.matched_by,
                "seconds": round(found.seconds, 6),
            }
            print(json.dumps(made), flush=True)

        try:
            for row in _rows(lines, pairs):
                under_way.append((row, pool.submit(grader.grade, row["gold"], row["response"])))
                while under_way[0][1].done() or len(under_way) >= AHEAD * workers:
                    finish()
                    if not under_way:
                        break
        finally:  # a bad line costs none of the good ones before it
            while under_way:
                finish()
    print(_summary(verdicts, against), file=sys.stderr)


def _opened(pairs: str) -> TextIO:
    if pairs == "-":
        return sys.stdin
    try:
        return Path(pairs).open(encoding="utf-8-sig")
    except OSError as error:
        raise DataError(
            f"cannot read {pairs!r}: {error.strerror}; give a JSONL file, or - for standard input"
        ) from None


def _rows(lines: TextIO, pairs: str) -> Iterator[dict[str, Any]]:
    """The rows of the file. One that is none is the user's mistake, with its line."""
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
                    raise DataError(f"{pairs}, line {number}: {name!r} is no text: rows are {{id, gold, response}}")
            yield {"id": number, **row}
    except UnicodeDecodeError:
        raise DataError(f"{pairs}, line {number + 1}: is no UTF-8") from None
    except (ValueError, RecursionError) as error:
        raise DataError(f"{pairs}, line {number}: is no JSON ({getattr(error, 'msg', 'too deep')})") from None


def _summary(verdicts: Counter[str], against: Counter[tuple[bool, bool]]) -> str:
    total = verdicts.total()
    counts = ", ".join(f"{count} {verdict} ({count / total:.1%})" for verdict, count in verdicts.most_common())
    text = f"{total} rows: {counts or 'nothing to grade'}"
    if against:
        found, right = against[True, True] + against[False, True], against[True, True] + against[True, False]
        precision = f"{against[True, True] / found:.4f}" if found else "-"
        recall = f"{against[True, True] / right:.4f}" if right else "-"
        text += f"; against the labels: precision {precision}, recall {recall}"
    return text
