"""Runs stage 2: Ray Data actors ask the rewriter and check what comes back."""

from collections import Counter

import pyarrow as pa

from pipeline.chat import ChatClient
from pipeline.config import Config
from pipeline.grading import Grader
from pipeline.records import Example, Fault, Problem, Rejected, Trace, from_table, to_table
from pipeline.reformat.rewriting import Rewriting, rewrite
from pipeline.responses import Segment
from pipeline.stage import Manifest, StageFolder, StageRun
from pipeline.storage import Place, count_rows
from ray_jobs import tables, worked
from ray_jobs.asking import Asker, batch_rows, dispatched, requests_made
from ray_jobs.dispatching import RemoteDispatcher
from ray_jobs.progress import Progress, Reporter


class ReformatActor:
    """Rewrites the solutions of a batch of problems, all at once."""

    def __init__(
        self, config: Config, responses: Place, reporter: Reporter, dispatcher: RemoteDispatcher | None
    ) -> None:
        with reporter.joins():
            self._config = config
            self._asker = Asker(config.rewriter, responses, reporter, dispatcher)
            self._grader = Grader()

    async def __call__(self, batch: pa.Table) -> pa.Table:
        problems = from_table(Problem, batch)
        return to_table(Rewriting, await self._asker.each(problems, lambda problem: problem.problem_id, self._one))

    async def _one(self, problem: Problem, client: ChatClient, segment: Segment) -> Rewriting:
        rewriting = await rewrite(problem, self._config.reformat, client, segment, self._grader)
        failed: Counter[str] = Counter(fault.reason for fault in rewriting.faults)
        self._asker.report(rejected=rewriting.rejected is not None, **failed)
        return rewriting


def run(config: Config) -> Manifest:
    """Make `2_reformat/traces`, `faults`, `examples` and `rejected`."""
    stage = StageRun(config, "reformat", inputs=("curate",))
    if stage.complete:
        return stage.complete
    settings = config.reformat
    problems = StageFolder(stage.root, "curate").table("problems")
    rows_in = count_rows(problems, Problem)
    with (
        dispatched(config, "reformat", config.rewriter, stage.folder) as dispatcher,
        Progress("reformat", rows_in, "problems", dispatcher) as progress,
    ):
        rewritings = tables.actor_map(
            tables.read(problems, Problem, settings.actors),
            ReformatActor,
            (config, stage.folder.table("responses"), progress.reporter, dispatcher),
            actors=settings.actors,
            cpus=settings.actor_cpus,
            batch_rows=batch_rows(config.rewriter),
        ).materialize()
    made = {
        name: tables.write(tables.unnest(rewritings, column, record), stage.folder.table(name), record)
        for name, column, record in (
            ("traces", "traces", Trace),
            ("faults", "faults", Fault),
            ("examples", "example", Example),
            ("rejected", "rejected", Rejected),
        )
    }
    stage.rejected.update(tables.reasons(stage.folder.table("rejected")))
    faults = Counter(tables.reasons(stage.folder.table("faults")))
    return stage.finish(
        rows_in=rows_in,
        rows_out=made["examples"],
        tables=made,
        faults=dict(sorted(faults.items())),
        **worked.figures(),
        **requests_made(progress),
        **tables.spending(stage.folder.table("traces")),
    )
