"""The plan of the demo, with a probe, beside what the demo really used.

    python benchmarks/plan_demo.py [ROOT]

ROOT (runs/demo) is a run of configs/demo.yaml on this machine; where it is not complete it is run first. Predicted is what `longthought
plan --probe` says of a root that is empty, and of one with the tables of the stages before each. Exit status 1 where requests are outside
either's range (and so not exact where that is one number), or a range is foretold though the tables before the stage decide them; and
where the tokens of the run are wrong by more than a tenth, or its time, or that of a stage of half a minute and more, by more than 30%.
Recorded in `benchmarks/results/plan.md`.
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

from pipeline.config import STAGES, Config, load
from pipeline.plan import run
from pipeline.plan.estimate import Estimate
from pipeline.plan.run import Need, Speed
from pipeline.records import Step
from pipeline.stage import Manifest, StageFolder, root_of
from pipeline.storage import read_rows
from ray_jobs.known import Told, endpoints, find
from ray_jobs.plan import count, duration, shape_of, stored
from ray_jobs.probe import probe

CONFIG = "configs/demo.yaml"
PLANNED = STAGES[:-1]
DECIDED = ("reformat", "distill", "serve")
"""Stages whose requests their input tables decide. How often a student must be forced to answer, none tells."""


def config_at(root: Path) -> Config:
    """The demo's, in this root."""
    return load(CONFIG, [f"storage.root={root}"])


def predicted(config: Config, speed: Speed) -> dict[str, Need]:
    """What is left of a run."""
    known = replace(find(config, Told()).known, speed=speed)
    return {need.stage: need for need in run.of_config(config, known, shape_of(config), None).needs}


def before(root: Path, stage: str, folder: Path) -> Path:
    """A root as it was before a stage: a copy of the tables and manifests of those before it."""
    copy = folder / stage
    for name in STAGES[: STAGES.index(stage)]:
        source = StageFolder(root_of(config_at(root)), name).place.path
        shutil.copytree(source, copy / Path(source).name, ignore=shutil.ignore_patterns("models", "responses"))
    return copy


def used(root: Path, stage: str) -> tuple[Manifest, int, int]:
    """A stage's manifest, the tokens it took, and the bytes it left."""
    folder = StageFolder(root_of(config_at(root)), stage)
    manifest = folder.require()
    tokens = manifest.prompt_tokens + manifest.completion_tokens
    if stage == "train":
        tokens = sum(step.tokens for step in read_rows(folder.table("steps"), Step))
    left = sum(file.stat().st_size for file in Path(folder.place.path).rglob("*") if file.is_file())
    return manifest, tokens, left


def rows(root: Path, first: dict[str, Need], then: dict[str, Need]) -> Iterator[str]:
    """Lines of a Markdown table."""
    yield "| stage | what | predicted | range | with the tables before it | used | predicted / used |"
    yield "|---|---|---|---|---|---|---|"
    for stage in PLANNED:
        need, later = first[stage], then[stage]
        manifest, tokens, bytes_left = used(root, stage)
        if manifest.requests:
            yield line(stage, "requests", need.asked.requests, later.asked.requests, manifest.requests, count)
        if tokens:
            of_both = [each.asked.prompt + each.asked.completion for each in (need, later)]
            yield line(stage, "tokens", of_both[0], of_both[1], tokens, count)
        if bytes_left > 1e6:
            yield line(stage, "stored", need.bytes, later.bytes, bytes_left, stored)
        if need.time and later.time:
            yield line(stage, "time", need.time.seconds, later.time.seconds, manifest.seconds, duration)
    for name, (estimate, number) in totals(root, first).items():
        yield line("all", name, estimate, None, number, {"tokens": count, "time": duration}[name])


def totals(root: Path, first: dict[str, Need]) -> dict[str, tuple[Estimate, float]]:
    """Tokens and seconds of all stages that were planned: foretold, and used."""
    tokens, seconds = (Estimate(0, 0, 0), 0.0), (Estimate(0, 0, 0), 0.0)
    for stage in PLANNED:
        need, (manifest, of_stage, _) = first[stage], used(root, stage)
        if of_stage:
            tokens = tokens[0] + need.asked.prompt + need.asked.completion, tokens[1] + of_stage
        if need.time:
            seconds = seconds[0] + need.time.seconds, seconds[1] + manifest.seconds
    return {"tokens": tokens, "time": seconds}


def faults(root: Path, first: dict[str, Need], then: dict[str, Need]) -> Iterator[str]:
    """What is not as it should be."""
    for stage in PLANNED:
        manifest = used(root, stage)[0]
        if stage in DECIDED and not then[stage].asked.requests.exact:
            yield f"{stage}: requests are not exact with the tables before it"
        for need in (first[stage], then[stage]):
            if not need.asked.requests.low <= manifest.requests <= need.asked.requests.high:
                yield f"{stage}: {manifest.requests} requests"
            if need.time and manifest.seconds >= 30 and abs(need.time.seconds.likely / manifest.seconds - 1) > 0.3:
                yield f"{stage}: {duration(need.time.seconds.likely)} foretold, {duration(manifest.seconds)} used"
    for name, most in (("tokens", 0.1), ("time", 0.3)):
        estimate, number = totals(root, first)[name]
        if abs(estimate.likely / number - 1) > most:
            yield f"{name}: {estimate.likely:,.0f} foretold, {number:,.0f} used"


def line(stage: str, what: str, first: Estimate, then: Estimate | None, number: float, words: object) -> str:
    """A row of it."""
    assert callable(words)
    span = "exact" if first.exact and what != "time" else f"{words(first.low)}-{words(first.high)}"
    later = "" if then is None else "the same" if then == first else words(then.likely)
    return f"| {stage} | {what} | {words(first.likely)} | {span} | {later} | {words(number)} | {first.likely / number:.2f} |"


def main() -> int:
    """Probe, plan, compare."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("root", nargs="?", type=Path, default=Path("runs/demo"))
    root = parser.parse_args().root.absolute()
    if StageFolder(root_of(config_at(root)), "evaluate").manifest() is None:
        command = [sys.executable, "-m", "ray_jobs", "run", "--config", CONFIG, "--set", f"storage.root={root}"]
        subprocess.run(command, check=True)
    with tempfile.TemporaryDirectory() as folder:
        empty = config_at(Path(folder) / "empty")
        found = find(empty, Told())
        speed, said = probe(empty, found.problems, found.heldout, found.rows, endpoints(empty, ()))
        print("\n".join(f"- {each}" for each in said), flush=True)
        first = predicted(empty, speed)
        then = {stage: predicted(config_at(before(root, stage, Path(folder))), speed)[stage] for stage in PLANNED}
        print("\n".join(rows(root, first, then)))
        broken = list(faults(root, first, then))
    print("\n".join(f"does not hold: {fault}" for fault in broken))
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
