"""A hundred thousand requests through `longthought distill`: memory of its actors over time, nothing lost, nothing doubled.

    python benchmarks/teacher_scale.py [--requests 100000]

A quarter as many problems, four answers of 2 kB each; two actors, 1,024 requests in flight, 100 ms latency. Memory is the
resident memory that is not shared (PSS) of the processes that ask, each second. Recorded in `benchmarks/results/teacher.md`.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import psutil
import pyarrow.dataset
from distilling import distill, prepared, record, stats, teacher

SAMPLES, ACTORS, IN_FLIGHT = 4, 2, 512


def memory_mib(driver: "subprocess.Popen[str]") -> dict[str, float]:
    """Memory of the actors that ask, and of the dispatcher."""
    found = {"actors": 0.0, "dispatcher": 0.0}
    try:
        for process in psutil.Process(driver.pid).children(recursive=True):
            name = " ".join(process.cmdline())
            kind = "actors" if "DistillActor" in name else "dispatcher" if "_Dispatcher" in name else None
            if kind:
                found[kind] += process.memory_full_info().pss / 2**20
    except psutil.Error:
        pass
    return found


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--requests", type=int, default=100_000)
    requests = parser.parse_args().requests
    problems = requests // SAMPLES
    with tempfile.TemporaryDirectory() as temporary:
        folder = Path(temporary)
        record(folder / "traces.jsonl", problems)
        with teacher(folder / "traces.jsonl", "--latency", "0.1"):
            settings = {"actors": ACTORS, "actor_cpus": 0.5, "keep": SAMPLES, "max_samples": SAMPLES}
            config = prepared(folder, problems, {"max_in_flight": IN_FLIGHT, "budget_tokens": 10**9}, settings)
            started, job = time.monotonic(), distill(config)
            said: list[str] = []
            threading.Thread(target=lambda: said.extend(job.stderr or []), daemon=True).start()
            seen: list[tuple[int, dict[str, float]]] = []
            while job.poll() is None:
                time.sleep(1)
                seen.append((stats()["answers"], memory_mib(job)))
            seconds, counted = time.monotonic() - started, stats()
        manifest = json.loads((folder / "run/3_distill/manifest.json").read_text())
        rows = pyarrow.dataset.dataset(folder / "run/3_distill/traces").to_table(columns=["trace_id", "request_id"])
    print(
        f"{requests} requests in {seconds:.0f} s, start and end included ({counted['answers'] / (counted['last_answer_at'] - counted['first_request_at']):,.0f}/s "
        f"between the first and the last): {counted['answers']} answers given, {counted['answered_again']} of them again; "
        f"{rows.num_rows} traces, {len(set(rows['request_id'].to_pylist()))} different; manifest: {manifest['requests']} requests"
    )
    for share in (0.1, 0.25, 0.5, 0.75, 1.0):
        answers, memory = next((each for each in seen if each[0] >= share * counted["answers"]), seen[-1])
        print(
            f"  after {answers:,} answers: actors {memory['actors']:,.0f} MiB, dispatcher {memory['dispatcher']:,.0f} MiB"
        )
    print(f"  most: actors {max(memory['actors'] for _, memory in seen):,.0f} MiB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
