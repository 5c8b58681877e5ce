"""A whole run of a few hundred sums in object storage, for tests that break it: its settings, and what came out of it."""

import json
from pathlib import Path

import small

from pipeline.records import Generation, PassRate, Score, Step, Trace, Verdict
from pipeline.stage import StageFolder
from pipeline.storage import Place, read_rows

SUMS = [(a, b) for a in range(10, 26) for b in range(21, 37)]


def write(folder: Path) -> None:
    """The files that the run reads, and that its teacher replays."""
    small.write_problems(folder, SUMS)
    small.write_traces(folder, SUMS)
    heldout = [{"problem": small.problem(a, 99), "answer": str(a + 99)} for a in range(100, 180)]
    small.write_jsonl(folder / "heldout.jsonl", heldout)


def settings(folder: Path, root: Place, teacher_url: str) -> list[str]:
    """Two trainings of twelve steps; the base model alone is evaluated, in float32, so that any two runs say the same."""
    stage = {"max_length": 256, "epochs": 1, "learning_rate": 1e-4, "rows_per_step": 2, "max_examples": 48}
    return [
        *small.overrides(folder, root.uri, teacher_url), f"storage.endpoint={root.endpoint}", "teacher.max_in_flight=24",
        "rewriter.max_in_flight=24", "distill.max_samples=2", "curate.duplicate_threshold=null", "train.checkpoint_every=4",
        f"train.stage1={json.dumps(stage)}", f"train.stage2={json.dumps(stage)}", "serve.models=[base]", "serve.dtype=float32",
        "evaluate.models=[base]", "evaluate.budgets=[32, 64]", "evaluate.max_in_flight=8",
    ]  # fmt: skip


def rows(root: Place) -> dict[str, list[tuple[object, ...]]]:
    """What two runs of the same settings must have in common, but for the losses."""

    def of(stage: str, table: str, record: type, *names: str) -> list[tuple[object, ...]]:
        found = read_rows(StageFolder(root, stage).table(table), record)
        return sorted(tuple(getattr(row, name) for name in names) for row in found)

    return {
        "traces": of("distill", "traces", Trace, "trace_id", "status", "response"),
        "verdicts": of("verify", "verdicts", Verdict, "trace_id", "verdict"),
        "pass_rates": of("verify", "pass_rates", PassRate, "problem_id", "correct", "samples"),
        "generations": of("evaluate", "generations", Generation, "generation_id", "status", "response"),
        "scores": of("evaluate", "scores", Score, "generation_id", "curve", "convention", "budget", "verdict"),
    }


def losses(root: Place) -> dict[tuple[str, int], float]:
    """The loss of each step."""
    steps = read_rows(StageFolder(root, "train").table("steps"), Step)
    assert len({(step.stage, step.step) for step in steps}) == len(steps)
    return {(step.stage, step.step): step.loss for step in steps}
