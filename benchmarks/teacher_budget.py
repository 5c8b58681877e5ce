"""A budget of one dollar, 512 requests in flight, answers of random length: how much of it is spent, by the teacher's count.

    python benchmarks/teacher_budget.py

Then the same run with two dollars: it goes on where it stopped. Recorded in `benchmarks/results/teacher.md`.
"""

import sys
import tempfile
from pathlib import Path

from distilling import distill, prepared, record, stats, teacher

PROBLEMS = 8_000
PRICE = {"prompt": 0.5, "completion": 0.75}


def spent() -> tuple[float, dict[str, int]]:
    """US dollars by the teacher's own count, and what it counted."""
    counted = stats()
    usd = (counted["prompt_tokens"] * PRICE["prompt"] + counted["completion_tokens"] * PRICE["completion"]) / 1e6
    return usd, {name: counted[name] for name in ("requests", "answers", "answered_again", "most_in_flight")}


def main() -> int:
    """Measure and print."""
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        record(folder / "traces.jsonl", PROBLEMS, longest=1000)
        with teacher(folder / "traces.jsonl", "--latency", "1.0"):
            for budget in (1.0, 2.0):
                endpoint = {"price": PRICE, "budget_usd": budget, "max_in_flight": 256}
                job = distill(prepared(folder, PROBLEMS, endpoint, {"actors": 2, "actor_cpus": 0.5, "max_samples": 1}))
                _, said = job.communicate()
                print(f"budget ${budget:.2f}: spent ${spent()[0]:.4f}, {spent()[1]}, exit status {job.returncode}")
                print(
                    f"  {next((line for line in said.splitlines() if line.startswith('error')), said[-300:])}",
                    flush=True,
                )
    return 0


if __name__ == "__main__":
    sys.exit(main())
