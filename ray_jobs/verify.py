"""Runs stage 4: Ray Data actors grade every trace; the driver chooses by ids, and Ray Data writes the chosen."""

import asyncio
from collections import defaultdict
from collections.abc import Iterator

import pyarrow as pa
import ray

from pipeline.config import Config, Verify
from pipeline.errors import DataError
from pipeline.grading import Grader
from pipeline.records import Example, PassRate, Problem, Rejected, Trace, Verdict, from_table, to_table
from pipeline.stage import Manifest, StageFolder, StageRun
from pipeline.storage import Place, count_rows, iter_dicts, read_rows, write_rows
from pipeline.verify import pass_rates
from pipeline.verify.judge import agreement, is_judged, judge
from pipeline.verify.quality import Quality, quality
from pipeline.verify.selection import choose, example_of, is_right, rejected_of, verdict_of
from ray_jobs import tables, worked
from ray_jobs.asking import Asker, dispatched, requests_made, usage
from ray_jobs.dispatching import RemoteDispatcher
from ray_jobs.progress import Progress, Reporter

BATCH_ROWS = 64


class VerifyActor:
    """Grades a batch of traces: the child process is where the work is. Asks the judge where there is one."""

    def __init__(
        self,
        config: Verify,
        problems: "ray.ObjectRef[dict[str, Problem]]",
        responses: Place,
        reporter: Reporter,
        dispatcher: RemoteDispatcher | None,
    ) -> None:
        with reporter.joins():
            self._judge = config.judge
            self._problems: dict[str, Problem] = ray.get(problems)
            self._grader = Grader()
            self._reporter = reporter
            self._asker = Asker(config.judge.endpoint, responses, reporter, dispatcher) if config.judge else None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        traces = from_table(Trace, batch)
        verdicts = await asyncio.gather(*map(self._graded, traces))
        if self._asker is not None and self._judge is not None:
            graded = zip(traces, verdicts, strict=True)
            verdicts += await self._judged(
                self._asker, [trace for trace, verdict in graded if is_judged(trace, verdict, self._judge)]
            )
        self._reporter.flush()
        return to_table(Verdict, verdicts)

    async def _graded(self, trace: Trace) -> Verdict:
        verdict = await verdict_of(trace, self._problems[trace.problem_id].answer, self._grader)
        self._reporter.add(done=1, correct=verdict.verdict == "correct")
        return verdict

    async def _judged(self, asker: Asker, traces: list[Trace]) -> list[Verdict]:
        verdicts = await asker.each(
            traces,
            lambda trace: trace.problem_id,
            lambda trace, client, segment: judge(self._problems[trace.problem_id], trace, client, segment),
        )
        asker.report(done=0, judged=len(verdicts))
        return verdicts


def run(config: Config) -> Manifest:
    """Make `4_verify/verdicts`, `pass_rates`, `examples` and `rejected`."""
    stage = StageRun(config, "verify", inputs=("curate", "distill"))
    if stage.complete:
        return stage.complete
    settings = config.verify
    traces = StageFolder(stage.root, "distill").table("traces")
    rows_in = count_rows(traces, Trace)
    known = {row.problem_id: row for row in read_rows(StageFolder(stage.root, "curate").table("problems"), Problem)}
    with (
        dispatched(config, "verify", settings.judge.endpoint if settings.judge else None, stage.folder) as dispatcher,
        Progress("verify", rows_in, "traces", dispatcher) as progress,
    ):
        problems = ray.put(known)
        graded = tables.actor_map(
            tables.read(traces, Trace, settings.actors),
            VerifyActor,
            (settings, problems, stage.folder.table("responses"), progress.reporter, dispatcher),
            actors=settings.actors,
            cpus=settings.actor_cpus,
            batch_rows=BATCH_ROWS,
        )
        verdicts = stage.folder.table("verdicts")
        made = {"verdicts": tables.write(graded, verdicts, Verdict)}
    outcome: dict[str, list[Verdict]] = defaultdict(list)
    for verdict in read_rows(verdicts, Verdict):
        outcome[verdict.trace_id].append(verdict)
    right = {trace_id for trace_id, verdicts_on in outcome.items() if is_right(verdicts_on)}
    rates = pass_rates.pass_rates(iter_dicts(traces, pass_rates.COLUMNS), right)
    made["pass_rates"] = write_rows(stage.folder.table("pass_rates"), PassRate, rates)
    fates = choose(_qualities(traces, right, settings.actors), settings)
    if None not in fates.values():
        raise DataError(
            f"of {rows_in} traces {len(right)} are right and none is learnt from: see `longthought show {stage.root} verify "
            "verdicts` and the settings of verify"
        )
    decided = ray.put((fates, dict(outcome)))

    def examples(batch: pa.Table) -> pa.Table:
        fates, _ = ray.get(decided)
        gold = ray.get(problems)
        kept = (trace for trace in from_table(Trace, batch) if fates.get(trace.trace_id, False) is None)
        return to_table(Example, [example_of(trace, gold[trace.problem_id], settings) for trace in kept])

    def rejected(batch: pa.Table) -> pa.Table:
        fates, outcome = ray.get(decided)
        dropped = (trace for trace in from_table(Trace, batch) if fates.get(trace.trace_id, False) is not None)
        return to_table(
            Rejected,
            [rejected_of(trace, outcome[trace.trace_id], fates.get(trace.trace_id)) for trace in dropped],
        )

    for name, record, part in (("examples", Example, examples), ("rejected", Rejected, rejected)):
        rows = tables.read(traces, Trace, settings.actors).map_batches(part, batch_format="pyarrow")
        made[name] = tables.write(rows, stage.folder.table(name), record)
    stage.rejected.update(tables.reasons(stage.folder.table("rejected")))
    asked = {**requests_made(progress), **usage(progress)} if settings.judge else {}
    return stage.finish(
        rows_in=rows_in,
        rows_out=made["examples"],
        tables=made,
        **worked.figures(),
        agreement=agreement(verdict for verdicts in outcome.values() for verdict in verdicts),
        **asked,
    )


def _qualities(traces: Place, right: set[str], workers: int) -> Iterator[Quality]:
    """What the choice looks at, of the right traces. Their texts stay where they are."""
    known = ray.put(right)

    def qualities(batch: pa.Table) -> pa.Table:
        right = ray.get(known)
        there = (trace for trace in from_table(Trace, batch) if trace.trace_id in right)
        return to_table(
            Quality, [quality(each.trace_id, each.problem_id, each.reasoning or each.response) for each in there]
        )

    for batch in tables.read(traces, Trace, workers).map_batches(qualities, batch_format="pyarrow").iter_batches(
        batch_format="pyarrow", batch_size=None
    ):  # fmt: skip
        yield from from_table(Quality, batch)
