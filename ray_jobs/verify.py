"""Runs stage 4: Ray Data actors grade every trace; the driver chooses by ids, and Ray Data writes the chosen."""

from collections.abc import Iterator

import pyarrow as pa
import ray

from pipeline.config import Config
from pipeline.errors import DataError
from pipeline.grading import Grader
from pipeline.records import Example, Problem, Rejected, Trace, Verdict, from_table, to_table
from pipeline.stage import Manifest, StageFolder, StageRun
from pipeline.storage import Place, count_rows, read_rows
from pipeline.verify import Candidate, choose, example_of, rejected_of, verdict_of
from ray_jobs import cluster, tables
from ray_jobs.progress import Progress, Reporter

BATCH_ROWS = 64


class VerifyActor:
    """Grades a batch of traces, one after the other: the child process is where the work is."""

    def __init__(self, problems: "ray.ObjectRef[dict[str, Problem]]", reporter: Reporter) -> None:
        self._problems: dict[str, Problem] = ray.get(problems)
        self._reporter = reporter
        self._grader = Grader()

    def __call__(self, batch: pa.Table) -> pa.Table:
        verdicts = []
        for trace in from_table(Trace, batch):
            verdicts.append(verdict_of(trace, self._problems[trace.problem_id].answer, self._grader))
            self._reporter.add(done=1, correct=verdicts[-1].verdict == "correct")
        self._reporter.flush()
        return to_table(Verdict, verdicts)


def run(config: Config) -> Manifest:
    """Make `4_verify/verdicts`, `examples` and `rejected`."""
    stage = StageRun(config, "verify", inputs=("curate", "distill"))
    if stage.complete:
        return stage.complete
    settings = config.verify
    traces = StageFolder(stage.root, "distill").table("traces")
    rows_in = count_rows(traces, Trace)
    cluster.connect()
    cluster.require(
        config,
        "verify",
        count=settings.actors,
        cpus=settings.actor_cpus,
        tasks=True,
        setting="verify.actors or actor_cpus",
    )
    known = read_rows(StageFolder(stage.root, "curate").table("problems"), Problem)
    problems = ray.put({problem.problem_id: problem for problem in known})
    with Progress("verify", rows_in, "traces") as progress:
        graded = tables.actor_map(
            tables.read(traces, Trace, settings.actors),
            VerifyActor,
            (problems, progress.reporter),
            actors=settings.actors,
            cpus=settings.actor_cpus,
            batch_rows=BATCH_ROWS,
        )
        verdicts = stage.folder.table("verdicts")
        made = {"verdicts": tables.write(graded, verdicts, Verdict)}
    outcome = {verdict.trace_id: verdict for verdict in read_rows(verdicts, Verdict)}
    chosen = choose(_candidates(traces, outcome), settings)
    if not chosen:
        raise DataError(f"none of {rows_in} traces is right: see `longthought show {stage.root} verify verdicts`")
    decided = ray.put((chosen, outcome))

    def examples(batch: pa.Table) -> pa.Table:
        chosen, _ = ray.get(decided)
        gold = ray.get(problems)
        kept = (trace for trace in from_table(Trace, batch) if trace.trace_id in chosen)
        return to_table(Example, [example_of(trace, gold[trace.problem_id], settings) for trace in kept])

    def rejected(batch: pa.Table) -> pa.Table:
        chosen, outcome = ray.get(decided)
        dropped = (trace for trace in from_table(Trace, batch) if trace.trace_id not in chosen)
        return to_table(Rejected, [rejected_of(trace, outcome[trace.trace_id]) for trace in dropped])

    for name, record, part in (("examples", Example, examples), ("rejected", Rejected, rejected)):
        rows = tables.read(traces, Trace, settings.actors).map_batches(part, batch_format="pyarrow")
        made[name] = tables.write(rows, stage.folder.table(name), record)
    stage.rejected.update(tables.reasons(stage.folder.table("rejected")))
    return stage.finish(rows_in=rows_in, rows_out=made["examples"], tables=made, ray_actors=cluster.actors())


def _candidates(traces: Place, verdicts: dict[str, Verdict]) -> Iterator[Candidate]:
    """The correct traces, with what the choice looks at."""
    for row in tables.columns(traces, ["trace_id", "problem_id", "reasoning"]).to_pylist():
        if verdicts[row["trace_id"]].verdict == "correct":
            yield Candidate(row["trace_id"], row["problem_id"], len(row["reasoning"] or ""))
