"""A run of a few sums, small enough to go through the stages in seconds."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from pipeline import config as configuration
from pipeline.config import Config

SUMS = [(a, b) for a in range(11, 19) for b in range(21, 29)]
REPO = Path(__file__).parents[2]


def problem(a: int, b: int) -> str:
    return f"What is {a} + {b}?"


def write_problems(folder: Path, sums: list[tuple[int, int]] = SUMS) -> Path:
    rows = [{"problem": problem(a, b), "answer": str(a + b), "solution": f"{a} + {b} = {a + b}"} for a, b in sums]
    return write_jsonl(folder / "problems.jsonl", rows)


def write_heldout(folder: Path) -> Path:
    return write_jsonl(
        folder / "heldout.jsonl", [{"problem": problem(a, 99), "answer": str(a + 99)} for a in (1, 2, 3)]
    )


def write_traces(folder: Path, sums: list[tuple[int, int]] = SUMS) -> Path:
    """Of every fourth sum the first sample is wrong; the second one is always right."""
    rows = []
    for index, (a, b) in enumerate(sums):
        said = [a + b + 1 if index % 4 == 0 else a + b, a + b]
        for answer in said:
            thought = f"I add {a} and {b}. Tens first, then units. Wait, let me check: {answer} - {b} = {answer - b}."
            rows.append(
                {
                    "model": "teacher",
                    "problem": problem(a, b),
                    "content": f"So it is \\boxed{{{answer}}}.",
                    "reasoning_content": thought,
                }
            )
            text = f"We add {a} and {b}. First the tens, then the units. Together that is {answer}. The answer is \\boxed{{{answer}}}."
            rows.append({"model": "rewriter", "problem": problem(a, b), "content": text})
    return write_jsonl(folder / "traces.jsonl", rows)


def write_jsonl(path: Path, rows: list[dict[str, Any]]) -> Path:
    path.write_text("".join(json.dumps(row) + "\n" for row in rows), "utf-8")
    return path


def overrides(folder: Path, root: str, teacher_url: str) -> list[str]:
    """What makes a small run of the demo's config."""
    source = {"name": "sums", "path": str(folder / "problems.jsonl"), "license": "Apache-2.0"}
    benchmark = {"name": "heldout", "path": str(folder / "heldout.jsonl")}
    return [
        f"storage.root={root}",
        f"curate.sources={json.dumps([source])}",
        "curate.actors=1",  # an actor of an earlier test whose run failed may still hold half a CPU
        f"evaluate.benchmarks={json.dumps([benchmark])}",
        "teacher.model=teacher",
        "rewriter.model=rewriter",
        *(f"{name}.base_url={teacher_url}" for name in ("teacher", "rewriter")),
        *(f"{name}.replay=null" for name in ("teacher", "rewriter")),
    ]


def arguments(stage: str, settings: list[str]) -> list[str]:
    """What follows `longthought` on a command line."""
    flags = [flag for setting in settings for flag in ("--set", setting)]
    return [stage, "--config", str(REPO / "configs/demo.yaml"), *flags]


def command(stage: str, settings: list[str]) -> list[str]:
    """A command line for a process of its own, to be started in `REPO`."""
    return [sys.executable, "-m", "ray_jobs", *arguments(stage, settings)]


def alone() -> dict[str, str]:
    """The environment of a command that starts a Ray of its own, whatever runs on this machine or was left there by a crash."""
    return {**os.environ, "RAY_ADDRESS": "local"}


def run(stage: str, settings: list[str], environment: dict[str, str] | None = None) -> None:
    """A command in a process of its own, which has to succeed; `alone` by default."""
    environment = environment or alone()
    done = subprocess.run(command(stage, settings), cwd=REPO, env=environment, text=True, capture_output=True)
    assert done.returncode == 0, f"{stage}: exit status {done.returncode}: {done.stdout[-3000:]}{done.stderr[-3000:]}"


def config(settings: list[str]) -> Config:
    return configuration.load(str(REPO / "configs/demo.yaml"), settings)
