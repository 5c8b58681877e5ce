"""A teacher with limits, four actors: how much of what it allows is used, and how often it refuses.

    python benchmarks/teacher_limits.py [--minutes 4] [--latency 2]

3,000 requests and 200,000 tokens a minute, of which the tokens bind. Each kind of provider: one that counts the tokens a
request allows (as OpenAI does) and one that counts those that come, both telling what is left in headers; and one that
tells nothing but Retry-After. Recorded in `benchmarks/results/teacher.md`.
"""

import argparse
import sys
import tempfile
import time
from pathlib import Path

from distilling import distill, prepared, record, stats, teacher

RPM, TPM, PROBLEMS = 3_000, 200_000, 6_000


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=4)
    parser.add_argument("--latency", type=float, default=2.0)
    given = parser.parse_args()
    for name, options in (
        ("counts what is allowed", ["--counted", "allowed"]),
        ("counts what comes", ["--counted", "used"]),
        ("tells nothing", ["--counted", "used", "--untold"]),
    ):
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            record(folder / "traces.jsonl", PROBLEMS, words=10, longest=1000)
            limits = ["--rpm", str(RPM), "--tpm", str(TPM), "--latency", str(given.latency)]
            with teacher(folder / "traces.jsonl", *limits, *options):
                distilling = {"actors": 4, "actor_cpus": 0.25, "max_samples": 1}
                job = distill(prepared(folder, PROBLEMS, {}, distilling))
                while not stats()["requests"]:
                    time.sleep(0.05)
                time.sleep(60)
                started, before = time.monotonic(), stats()
                time.sleep(60 * (given.minutes - 1))
                minutes, after = (time.monotonic() - started) / 60, stats()
                job.kill()
                job.wait()
            asked, refused, tokens = (after[key] - before[key] for key in ("requests", "limited", "counted_tokens"))
            print(
                f"{name}: after the first minute {tokens / (TPM * minutes):.1%} of the allowance, {refused} of {asked} "
                f"requests refused ({refused / asked:.2%}); in the first minute {before['limited']} of {before['requests']}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
