"""Responses graded in a second: ours with two workers beside Math-Verify called directly in two processes.

    python benchmarks/grading_throughput.py PAIRS.jsonl... [--rounds 3]

Both grade the same rows in turns, several rounds; the ratio of each round is what counts, for machines are noisy.
Imports are done before the clock starts. Recorded in `benchmarks/results/grading.md`.
"""

import argparse
import json
import statistics
import sys
import time
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from grading_accuracy import by_math_verify

from pipeline.grading import Grader

WORKERS = 2


def ours(rows: list[dict[str, Any]], grader: Grader, pool: ThreadPoolExecutor) -> float:
    """Seconds for all rows, two at a time."""
    started = time.monotonic()
    list(pool.map(lambda row: grader.grade(row["gold"], row["response"]), rows))
    return time.monotonic() - started


def theirs(rows: list[dict[str, Any]], pool: ProcessPoolExecutor) -> float:
    """Seconds for all rows in two processes, without isolation: a time-out is a signal in the worker itself."""
    started = time.monotonic()
    list(pool.map(by_math_verify, rows, chunksize=20))
    return time.monotonic() - started


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("pairs", nargs="+", type=Path)
    parser.add_argument("--rounds", type=int, default=3)
    given = parser.parse_args()
    for file in given.pairs:
        rows = [json.loads(line) for line in file.read_text("utf-8").splitlines()]
        ratios = []
        with (
            Grader(workers=WORKERS) as grader,
            ThreadPoolExecutor(WORKERS) as threads,
            ProcessPoolExecutor(WORKERS) as processes,
        ):
            warm = [{"gold": "x", "response": rf"\boxed{{y + {n}}}"} for n in range(20)]  # both start their processes
            ours(warm, grader, threads), theirs(warm, processes)
            for _ in range(given.rounds):
                mine, other = ours(rows, grader, threads), theirs(rows, processes)
                ratios.append(other / mine)
                print(f"{file.stem}: ours {len(rows) / mine:.0f} rows/s, Math-Verify {len(rows) / other:.0f} rows/s, ratio {ratios[-1]:.2f}")  # fmt: skip
        print(f"{file.stem}: median ratio {statistics.median(ratios):.2f}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
