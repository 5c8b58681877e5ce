"""Rows for tables."""

from pipeline.records import Verdict


def verdicts(count: int) -> list[Verdict]:
    return [Verdict(f"{i:04d}", "symbolic", "correct", None if i % 2 else "é", "number", 0.1) for i in range(count)]
