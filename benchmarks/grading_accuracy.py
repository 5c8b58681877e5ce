"""How often each grader is right on labelled sets: ours, Math-Verify, sympy alone, and string match.

    python benchmarks/grading_accuracy.py FOLDER_OR_FILES... [--disputed benchmarks/grading_disputed.jsonl]

A labelled set is JSONL with the columns `gold`, `response` and `label` (true where the response is right), and `id`.
Rows named in --disputed have a label that is wrong or cannot be decided, each with the reason: the table has ours
with and without them. Recorded in `benchmarks/results/grading.md`.
"""

import argparse
import json
import sys
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pipeline.grading import Grader, final_answer, last_boxed

LIMIT_S = 5


@dataclass(frozen=True)
class Outcome:
    """What a grader made of a set, against its labels."""

    right_as_right: int
    wrong_as_right: int
    right_as_wrong: int
    rows: int

    @property
    def precision(self) -> float:
        return self.right_as_right / max(1, self.right_as_right + self.wrong_as_right)

    @property
    def recall(self) -> float:
        return self.right_as_right / max(1, self.right_as_right + self.right_as_wrong)

    @property
    def accuracy(self) -> float:
        return 1 - (self.wrong_as_right + self.right_as_wrong) / max(1, self.rows)

    @property
    def f1(self) -> float:
        return 2 * self.precision * self.recall / max(1e-9, self.precision + self.recall)


def outcome(rows: list[dict[str, Any]], graded: list[bool]) -> Outcome:
    """Count verdicts against labels."""
    pairs = [(bool(row["label"]), found) for row, found in zip(rows, graded, strict=True)]
    return Outcome(pairs.count((True, True)), pairs.count((False, True)), pairs.count((True, False)), len(pairs))


def by_math_verify(row: dict[str, Any]) -> bool:
    """Math-Verify as its README has it, on the whole response."""
    from math_verify import parse, verify

    gold = row["gold"] if "$" in row["gold"] or "\\boxed" in row["gold"] else f"${row['gold']}$"
    return bool(verify(parse(gold), parse(row["response"]), timeout_seconds=LIMIT_S))


def by_sympy(row: dict[str, Any]) -> bool:
    """The last box, or the last line, compared by sympy alone."""
    import signal

    import sympy
    from sympy.parsing.sympy_parser import (
        convert_xor,
        implicit_multiplication_application,
        parse_expr,
        standard_transformations,
    )

    rules = (*standard_transformations, implicit_multiplication_application, convert_xor)

    def tree(text: str) -> Any:
        bare = text.strip().strip("$").replace("\\left", "").replace("\\right", "").replace("\\frac", "frac")
        for before, after in (
            ("frac{", "(("),
            ("}{", ")/("),
            ("}", "))"),
            ("\\sqrt{", "sqrt(("),
            ("\\pi", "pi"),
            ("\\cdot", "*"),
        ):
            bare = bare.replace(before, after)
        return parse_expr(bare, transformations=rules)

    signal.alarm(LIMIT_S)
    try:
        return bool(sympy.simplify(tree(row["gold"]) - tree(plain_answer(row["response"]))) == 0)
    except Exception:
        return False
    finally:
        signal.alarm(0)


def by_string(row: dict[str, Any]) -> bool:
    """The last box, or the last line, equal to the gold answer but for spaces."""
    return "".join(row["gold"].split()) == "".join(plain_answer(row["response"]).split())


def plain_answer(response: str) -> str:
    """The last box of a response, else its last line."""
    boxed = last_boxed(response)
    line = response.strip().splitlines()[-1] if response.strip() else ""
    return boxed if boxed is not None else line.rpartition(":")[2].strip().rstrip(".")


OTHERS: dict[str, Callable[[dict[str, Any]], bool]] = {
    "math-verify": by_math_verify,
    "sympy": by_sympy,
    "string": by_string,
}


def read_sets(paths: list[Path]) -> dict[str, list[dict[str, Any]]]:
    """The labelled sets, by file name; files without labels are left out."""
    files = [file for path in paths for file in (sorted(path.glob("*.jsonl")) if path.is_dir() else [path])]
    sets = {
        file.stem: [json.loads(line) for line in file.read_text("utf-8").splitlines() if line.strip()] for file in files
    }
    return {name: rows for name, rows in sets.items() if rows and "label" in rows[0]}


def table(results: dict[str, dict[str, Outcome]]) -> str:
    """A Markdown table, one row for each set and grader."""
    lines = ["| set | rows | grader | accuracy | precision | recall | F1 |", "|---|---|---|---|---|---|---|"]
    for name, graders in results.items():
        for grader, found in graders.items():
            figures = " | ".join(f"{value:.4f}" for value in (found.accuracy, found.precision, found.recall, found.f1))
            lines.append(f"| {name} | {found.rows} | {grader} | {figures} |")
    return "\n".join(lines)


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="+", type=Path)
    parser.add_argument("--disputed", type=Path, help="JSONL of {set, id, why}: rows whose label is not to be trusted")
    parser.add_argument("--errors", type=Path, help="write the rows that ours gets wrong here")
    parser.add_argument("--only-ours", action="store_true", help="leave the other graders out")
    given = parser.parse_args()
    lines = given.disputed.read_text("utf-8").splitlines() if given.disputed else []
    disputed = {(row["set"], row["id"]) for row in map(json.loads, lines)}
    results: dict[str, dict[str, Outcome]] = {}
    errors = []
    for name, rows in read_sets(given.paths).items():
        with Grader(workers=1) as grader:
            grades = [grader.grade(row["gold"], row["response"]) for row in rows]
        ours = [grade.verdict == "correct" for grade in grades]
        kept = [(row, found) for row, found in zip(rows, ours, strict=True) if (name, row["id"]) not in disputed]
        results[name] = {"ours": outcome(rows, ours)}
        if len(kept) < len(rows):
            results[name]["ours, undisputed"] = outcome([row for row, _ in kept], [found for _, found in kept])
        for row, grade in zip(rows, grades, strict=True):
            if (grade.verdict == "correct") != row["label"]:
                known = (name, row["id"]) in disputed
                errors.append({"set": name, "id": row["id"], "label": row["label"], "gold": row["gold"], "verdict": grade.verdict, "extracted": grade.extracted, "stated": final_answer(row["response"]), "matched_by": grade.matched_by, "disputed": known, "end": row["response"][-300:]})  # fmt: skip
        if not given.only_ours:
            with ProcessPoolExecutor(2) as pool:
                for other, function in OTHERS.items():
                    results[name][other] = outcome(rows, list(pool.map(function, rows, chunksize=20)))
        print(name, "done", file=sys.stderr)
    if given.errors:
        given.errors.write_text("".join(json.dumps(error, ensure_ascii=False) + "\n" for error in errors), "utf-8")
    print(table(results))
    return 0


if __name__ == "__main__":
    sys.exit(main())
