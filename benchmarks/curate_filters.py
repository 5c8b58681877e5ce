"""What each rule of `curate` drops of real problem sets, and how much of what people labelled it finds.

    python benchmarks/curate_filters.py ../shared/data

FOLDER holds the sets as JSONL in `problems/` and `benchmarks/` (rows with problem, answer, solution). Recall is against
gold that is in them: proof problems of HARP and IMO-ProofBench, `[asy]` drawings of the MATH test set, the answer types
that MARIO_EVAL's annotators and OlympiadBench give. Precision was read by hand: `benchmarks/results/curate.md`.
"""

import argparse
import json
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pipeline.config import Curate, Source
from pipeline.curate.filters import Filters
from pipeline.grading import answer_type
from pipeline.records import Problem, Rejected
from pipeline.sources import RawRow

SETS = (
    "problems/math_train", "problems/math_test_5000", "problems/gsm8k/gsm8k_train.jsonl", "problems/deepscaler",
    "problems/omni_math_rule", "problems/aime_train", "problems/gair_cs2916", "problems/harp_proof",
    "problems/zh_math_limo", "benchmarks/imobench", "benchmarks/olympiadbench_math", "benchmarks/olymmath",
)  # fmt: skip
SOURCE = Source(name="set", path="-", license="unknown")
REAL = frozenset(["integer", "decimal", "fraction", "percentage", "real"])


def rows_of(folder: Path, name: str) -> Iterator[tuple[dict[str, Any], RawRow]]:
    """The rows of a set as they are, and as `curate` reads them."""
    place = folder / name
    for file in sorted(place.glob("*.jsonl")) if place.is_dir() else [place]:
        for number, line in enumerate(file.read_bytes().splitlines(), 1):
            row = json.loads(line)
            answer = None if row["answer"] is None else str(row["answer"])
            yield row, RawRow(f"{file.name}:{number}", row["problem"], answer, row.get("solution"), None)


def counts(folder: Path, filters: Filters) -> dict[str, list[tuple[dict[str, Any], str]]]:
    """Of each set the rows with the reason why they go, "kept" where they stay."""
    found = {}
    for name in SETS:
        outcomes = [(row, filters.examine(raw, SOURCE, "-")) for row, raw in rows_of(folder, name)]
        found[name] = [(row, item.reason if isinstance(item, Rejected) else "kept") for row, item in outcomes]
    return found


def print_counts(found: dict[str, list[tuple[dict[str, Any], str]]]) -> None:
    """A row for each set, a column for each reason."""
    by_set = {name: Counter(reason for _, reason in rows) for name, rows in found.items()}
    reasons = ["kept", *sorted({reason for each in by_set.values() for reason in each} - {"kept"})]
    print("| set | rows | " + " | ".join(reasons) + " |\n|" + "---|" * (len(reasons) + 2))
    for name, each in by_set.items():
        print(
            f"| {name.split('/')[1]} | {each.total()} | " + " | ".join(str(each[reason]) for reason in reasons) + " |"
        )


def print_recall(found: dict[str, list[tuple[dict[str, Any], str]]]) -> None:
    """How much of the labelled gold is dropped, and how often the type is the labelled one."""

    def share(name: str, what: str, rows: list[bool]) -> None:
        print(f"{name}: {what}: {sum(rows)} of {len(rows)} ({sum(rows) / len(rows):.3f})")

    proofs = found["problems/harp_proof"]
    numeric = [_has_number(row) for row, _ in proofs]
    dropped = [reason != "kept" for _, reason in proofs]
    share("HARP proofs", "dropped", dropped)
    share(
        "HARP proofs",
        "dropped, of those without a number in a box",
        [d for d, n in zip(dropped, numeric, strict=True) if not n],
    )
    share("HARP proofs", "dropped as proof", [reason == "proof" for _, reason in proofs])
    bench = [(row, reason) for row, reason in found["benchmarks/imobench"] if row["id"].startswith("PB-")]
    share("IMO-ProofBench", "dropped", [reason != "kept" for _, reason in bench])
    share(
        "IMO-ProofBench",
        "dropped, of those whose answer is no number",
        [reason != "kept" for row, reason in bench if answer_type(row["answer"].strip(" $.")) not in REAL],
    )
    mathematics = found["problems/math_test_5000"]
    share(
        "MATH test, [asy]",
        "dropped as needs_image",
        [reason == "needs_image" for row, reason in mathematics if "[asy]" in row["problem"]],
    )
    typed = [(row["human_type"] == "Real", answer_type(row["answer"]) in REAL) for row, _ in mathematics]
    _print_types("MATH test, human_type Real", typed)
    olympiad = found["benchmarks/olympiadbench_math"]
    _print_types(
        "OlympiadBench, one Numerical answer",
        [
            (row["answer_type"] == "Numerical" and not row["is_multiple_answer"], answer_type(row["answer"]) in REAL)
            for row, _ in olympiad
        ],
    )


def _has_number(row: dict[str, Any]) -> bool:
    found = Filters(Curate(sources=(SOURCE,), benchmarks=())).examine(
        RawRow("-", "Find it, please.", None, row["solution"], None), SOURCE, "-"
    )
    return isinstance(found, Problem)


def _print_types(name: str, pairs: list[tuple[bool, bool]]) -> None:
    both = Counter(pairs)
    recall, precision = (
        both[True, True] / (both[True, True] + both[True, False]),
        both[True, True] / (both[True, True] + both[False, True]),
    )
    print(f"{name}: called a number: precision {precision:.3f}, recall {recall:.3f} of {len(pairs)}")


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("folder", type=Path)
    folder = parser.parse_args().folder
    found = counts(folder, Filters(Curate(sources=(SOURCE,), benchmarks=())))
    print_counts(found)
    print()
    print_recall(found)
    return 0


if __name__ == "__main__":
    sys.exit(main())
