"""A million problems through `longthought curate`: filters, duplicates and decontamination on this machine.

    python benchmarks/curate_million.py ../shared/data [--rows 250000 1000000]

Real problems repeated with edits (one word in 25 changed), as JSON Lines. Each size runs as a job of its own, the largest
once more with its rows in another order and cut into other files: the survivors must be the same, byte for byte. Memory
is the sum of the resident memory of all processes of the job less what they share (PSS), Ray's own and its object store
among them, sampled each second. Recorded in `benchmarks/results/curate.md`.
"""

import argparse
import hashlib
import json
import os
import random
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import minimal
import pyarrow.dataset
from curate_decontamination import BENCHMARKS
from curate_duplicates import edited, real_problems, vocabulary_of

REPO = Path(__file__).parents[1]


def write_rows(texts: list[str], rows: int, folder: Path, *, files: int, seed: int) -> None:
    """The problems and their edited copies as JSON Lines, in an order by the seed."""
    vocabulary = vocabulary_of(texts)
    order = list(range(rows))
    if seed:
        random.Random(seed).shuffle(order)
    folder.mkdir()
    for part in range(files):
        with (folder / f"{part:03}.jsonl").open("w", encoding="utf-8") as stream:
            for index in order[part::files]:
                text = texts[index % len(texts)]
                copy = index >= len(texts)
                row = {  # the same wherever it stands
                    "problem": edited(text, vocabulary, random.Random(index)) if copy else text,
                    "answer": str(index % len(texts) % 97),
                    "solution": "s" * (index % 7),
                }
                stream.write(json.dumps(row, ensure_ascii=False) + "\n")


def config_of(folder: Path, data: Path, root: Path) -> Path:
    """A config that curates the folder's rows."""
    benchmarks = [{"name": name, "path": str(data / "benchmarks" / name)} for name in BENCHMARKS if name != "imobench"]
    curate = {
        "sources": [{"name": "million", "path": str(folder), "license": "unknown", "origin": "edited"}],
        "benchmarks": benchmarks,
        "actor_cpus": 0.5,
    }
    evaluate = {"benchmarks": benchmarks[:1], "budgets": [64]}
    return minimal.config(root.with_suffix(".yaml"), root, curate=curate, evaluate=evaluate)


def memory_mib(before: set[int]) -> tuple[float, float]:
    """Memory of the processes that are new since then, and of the largest of them that is a driver."""
    total, driver = 0.0, 0.0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit() or int(entry.name) in before:
            continue
        try:
            lines = (entry / "smaps_rollup").read_text().splitlines()
            command = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        size = next((int(line.split()[1]) / 1024 for line in lines if line.startswith("Pss:")), 0.0)
        total += size
        if b"ray_jobs\0curate" in command:
            driver = max(driver, size)
    return total, driver


def curated(config: Path) -> tuple[float, float, float]:
    """Seconds of the job, the most memory of all its processes in MiB, and of its driver."""
    before = {int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit()}
    peak, stop = [0.0, 0.0], threading.Event()

    def watch() -> None:
        while not stop.wait(1):
            peak[:] = (max(pair) for pair in zip(peak, memory_mib(before), strict=True))

    thread = threading.Thread(target=watch)
    thread.start()
    started = time.monotonic()
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    command = [sys.executable, "-m", "ray_jobs", "curate", "--config", str(config)]
    try:
        subprocess.run(command, cwd=REPO, env=environment, check=True)
        seconds = time.monotonic() - started
    finally:
        stop.set()
        thread.join()
    return seconds, *peak


def survivors_hash(root: Path) -> tuple[int, str]:
    """How many problems are left, and a hash of them all in their order."""
    found, rows = hashlib.sha256(), 0
    for batch in pyarrow.dataset.dataset(root / "1_curate" / "problems").to_batches():
        rows += batch.num_rows
        for row in batch.to_pylist():
            found.update(json.dumps(row, sort_keys=True).encode())
    return rows, found.hexdigest()[:16]


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", type=Path)
    parser.add_argument("--rows", type=int, nargs="+", default=[250_000, 1_000_000])
    given = parser.parse_args()
    texts = real_problems(given.data / "problems")
    print(f"{len(texts)} distinct real problems")
    with tempfile.TemporaryDirectory() as temporary:
        place = Path(temporary)
        runs = [(rows, 16, 0) for rows in given.rows] + [(given.rows[-1], 7, 1)]
        for rows, files, seed in runs:
            name = f"{rows}_{files}"
            write_rows(texts, rows, place / name, files=files, seed=seed)
            root = place / f"run_{name}"
            seconds, peak, driver = curated(config_of(place / name, given.data.resolve(), root))
            manifest = json.loads((root / "1_curate" / "manifest.json").read_text())
            kept, digest = survivors_hash(root)
            print(
                f"{rows} rows in {files} files, order {seed}: {seconds:.0f} s, {rows / seconds:,.0f} rows/s, all processes "
                f"{peak:,.0f} MiB, the driver {driver:,.0f} MiB; {kept} survivors, hash {digest}; {manifest['rejected']}",
                flush=True,
            )
    return 0


if __name__ == "__main__":
    sys.exit(main())
