"""Runs stage 3: Ray Data actors sample long thoughts from the teacher."""

import pyarrow as pa

from pipeline.chat import ChatClient
from pipeline.config import Config
from pipeline.distill.sampling import sample, unanswered
from pipeline.grading import Grader
from pipeline.records import Problem, Rejected, Trace, from_table, to_json, to_table
from pipeline.responses import Segment
from pipeline.stage import Manifest, StageFolder, StageRun
from pipeline.storage import Place, count_rows, iter_dicts, read_rows
from ray_jobs import tables, worked
from ray_jobs.asking import Asker, batch_rows, dispatched, requests_made
from ray_jobs.dispatching import RemoteDispatcher
from ray_jobs.progress import Progress, Reporter


class DistillActor:
    """Samples traces for a batch of problems, all at once."""

    def __init__(
        self, config: Config, responses: Place, reporter: Reporter, dispatcher: RemoteDispatcher | None
    ) -> None:
        with reporter.joins():
            self._config = config
            self._asker = Asker(config.teacher, responses, reporter, dispatcher)
            self._grader = Grader()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        sampled = await self._asker.each(from_table(Problem, batch), lambda problem: problem.problem_id, self._one)
        return to_table(Trace, [trace for traces in sampled for trace in traces])

    async def _one(self, problem: Problem, client: ChatClient, segment: Segment) -> list[Trace]:
        traces = await sample(problem, self._config.distill, client, segment, self._grader)
        self._asker.report(traces=len(traces))
        return traces


def run(config: Config) -> Manifest:
    """Make `3_distill/traces` and `rejected`: the problems that got no answer at all."""
    stage = StageRun(config, "distill", inputs=("curate",))
    if stage.complete:
        return stage.complete
    settings = config.distill
    problems = StageFolder(stage.root, "curate").table("problems")
    rows_in = count_rows(problems, Problem)
    traces = stage.folder.table("traces")
    with (
        dispatched(config, "distill", config.teacher, stage.folder) as dispatcher,
        Progress("distill", rows_in, "problems", dispatcher) as progress,
    ):
        sampled = tables.actor_map(
            tables.read(problems, Problem, settings.actors),
            DistillActor,
            (config, stage.folder.table("responses"), progress.reporter, dispatcher),
            actors=settings.actors,
            cpus=settings.actor_cpus,
            batch_rows=batch_rows(config.teacher),
        )
        count = tables.write(sampled, traces, Trace)
    answered, errors = unanswered(iter_dicts(traces, ("problem_id", "status", "error")))
    stage.reject(
        Rejected(problem.problem_id, "distill", "request_failed", errors[problem.problem_id], to_json(problem))
        for problem in (read_rows(problems, Problem) if errors else [])
        if problem.problem_id in errors
    )
    return stage.finish(
        rows_in=rows_in,
        rows_out=answered,
        tables={"traces": count},
        **worked.figures(),
        **requests_made(progress),
        **tables.spending(traces),
    )
