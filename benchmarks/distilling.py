"""What the benchmarks of the teacher engine share: a replay teacher in its own process, and `longthought distill` against it."""

import json
import os
import random
import subprocess
import sys
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import minimal

from pipeline.config import load
from pipeline.records import Problem, problem_id
from pipeline.stage import StageRun
from pipeline.storage import write_rows

REPO = Path(__file__).parents[1]
PORT = 8977
URL = f"http://127.0.0.1:{PORT}/v1"
PROMPT = {"model": "replay", "base_url": URL, "api_key_env": None}


def record(file: Path, problems: int, *, words: int = 400, longest: int | None = None, samples: int = 1) -> None:
    """Recorded answers: right ones of 500 tokens, or of random lengths up to the longest."""
    rng = random.Random(0)
    with file.open("w", encoding="utf-8") as stream:
        for number in range(problems):
            for _ in range(samples):
                tokens = rng.randrange(1, longest) if longest else 500
                content = "word " * words + f"\\boxed{{{number}}}"
                row = {"problem": question(number), "content": content, "completion_tokens": tokens}
                stream.write(json.dumps(row) + "\n")


def question(number: int) -> str:
    """The text of a problem."""
    return f"What is {number} + 0?"


@contextmanager
def teacher(traces: Path, *options: str) -> Iterator[None]:
    """The replay teacher, from its first answer on."""
    command = [sys.executable, "-m", "ray_jobs", "teacher", "--replay", str(traces), "--port", str(PORT), *options]
    process = subprocess.Popen(command, cwd=REPO, stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                stats()
                break
            except OSError:
                time.sleep(0.1)
        yield
    finally:
        process.kill()
        process.wait()


def stats() -> dict[str, Any]:
    """What the teacher counted."""
    with urllib.request.urlopen(f"http://127.0.0.1:{PORT}/stats", timeout=30) as answer:
        found: dict[str, Any] = json.loads(answer.read())
    return found


def prepared(folder: Path, problems: int, endpoint: dict[str, Any], distill: dict[str, Any]) -> Path:
    """The config of a run whose first stage is complete."""
    model = {**PROMPT, "sampling": {"max_tokens": 1000}, **endpoint}
    file = minimal.config(folder / "config.yaml", folder / "run", rewriter=model, teacher=model, distill=distill)
    stage = StageRun(load(str(file), []), "curate")
    if not stage.complete:
        rows = [
            Problem(problem_id(question(n)), question(n), str(n), "integer", None, "sums", "MIT", None)
            for n in range(problems)
        ]
        rows.sort(key=lambda row: row.problem_id)
        write_rows(stage.folder.table("problems"), Problem, rows)
        stage.finish(rows_in=problems, rows_out=problems, tables={"problems": problems})
    return file


def distill(config: Path, *options: str) -> subprocess.Popen[str]:
    """`longthought distill`, started."""
    command = [sys.executable, "-m", "ray_jobs", "distill", "--config", str(config), *options]
    environment = {**os.environ, "PYTHONPATH": str(REPO)}
    return subprocess.Popen(command, cwd=REPO, env=environment, stderr=subprocess.PIPE, text=True)
