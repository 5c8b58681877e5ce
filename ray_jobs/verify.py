"""Runs stage 4: Ray Data actors grade every trace; the driver chooses by ids, and Ray Data writes the chosen."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline.config import Config, Verify
from pipeline.errors import DataError
from pipeline.grading import Grader
from pipeline.records import Example, PassRate, Problem, Rejected, Trace, Verdict, from_table, to_table
from pipeline.stage import Manifest, StageFolder, StageRun
from pipeline.storage import Place, count_rows, read_columns, read_table, write_rows
from pipeline.verify import pass_rates
from pipeline.verify.by_id import ById, wide
from pipeline.verify.judge import agreement, is_judged, judge
from pipeline.verify.quality import Quality, quality
from pipeline.verify.selection import Fate, choose, example_of, rejected_of, right_traces, verdict_of
from ray_jobs import tables, worked
from ray_jobs.asking import Asker, dispatched, requests_made, usage
from ray_jobs.dispatching import RemoteDispatcher
from ray_jobs.progress import Progress, Reporter

BATCH_ROWS = 64
CHOSEN_AT_ONCE = 50_000
"""Right traces that the driver holds as objects: of all others columns."""


class VerifyActor:
    """Grades a batch of traces: the child process is where the work is. Asks the judge where there is one."""

    def __init__(
        self,
        config: Verify,
        problems: "ray.ObjectRef[ById]",
        responses: Place,
        reporter: Reporter,
        dispatcher: RemoteDispatcher | None,
    ) -> None:
        with reporter.joins():
            self._judge = config.judge
            self._problems: ById = ray.get(problems)
            self._grader = Grader()
            self._reporter = reporter
            self._asker = Asker(config.judge.endpoint, responses, reporter, dispatcher) if config.judge else None

    async def __call__(self, batch: pa.Table) -> pa.Table:
        self._reporter.works_in(asyncio.get_running_loop())
        asked = _with_problems(batch, self._problems)
        verdicts = await asyncio.gather(*(self._graded(trace, problem) for trace, problem in asked))
        if self._asker is not None and self._judge is not None:
            graded = zip(asked, verdicts, strict=True)
            verdicts += await self._judged(
                self._asker, [each for each, verdict in graded if is_judged(each[0], verdict, self._judge)]
            )
        self._reporter.flush()
        return to_table(Verdict, verdicts)

    async def _graded(self, trace: Trace, problem: Problem) -> Verdict:
        verdict = await verdict_of(trace, problem.answer, self._grader)
        self._reporter.add(done=1, correct=verdict.verdict == "correct")
        return verdict

    async def _judged(self, asker: Asker, asked: list[tuple[Trace, Problem]]) -> list[Verdict]:
        verdicts = await asker.each(
            asked,
            lambda each: each[0].problem_id,
            lambda each, client, segment: judge(each[1], each[0], client, segment),
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
    known = ById(read_table(StageFolder(stage.root, "curate").table("problems"), Problem), "problem_id")
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
    graded = read_table(verdicts, Verdict)
    right = right_traces(graded)
    rates = pass_rates.pass_rates(read_columns(traces, pass_rates.COLUMNS), right)
    made["pass_rates"] = write_rows(stage.folder.table("pass_rates"), PassRate, rates)
    fates = _fates(_qualities(traces, right, settings.actors), settings)
    chosen = fates.filter(pc.field("reason").is_null())
    if not chosen.num_rows:
        raise DataError(
            f"of {rows_in} traces {len(right)} are right and none is learnt from: see `longthought show {stage.root} verify "
            "verdicts` and the settings of verify"
        )
    kept = ray.put(ById(chosen, "trace_id"))
    dropped = ray.put(ById(fates.filter(pc.field("reason").is_valid()), "trace_id"))
    symbolic = ray.put(ById(graded.filter(pc.field("grader") == "symbolic"), "trace_id"))

    def examples(batch: pa.Table) -> pa.Table:
        batch = batch.filter(ray.get(kept).has(batch["trace_id"]))
        gold = _with_problems(batch, ray.get(problems))
        return to_table(Example, [example_of(trace, problem, settings) for trace, problem in gold])

    def rejected(batch: pa.Table) -> pa.Table:
        batch = batch.filter(pc.invert(ray.get(kept).has(batch["trace_id"])))
        ids = batch["trace_id"]
        rows = zip(
            from_table(Trace, batch),
            from_table(Verdict, ray.get(symbolic).rows(ids)),
            from_table(Fate, ray.get(dropped).rows(ids)),
            strict=True,
        )
        return to_table(Rejected, [rejected_of(*row) for row in rows])

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
        agreement=agreement(graded),
        **asked,
    )


def _with_problems(traces: pa.Table, problems: ById) -> list[tuple[Trace, Problem]]:
    rows = problems.rows(traces["problem_id"])
    if rows["problem_id"].null_count:
        unknown = traces["problem_id"].filter(rows["problem_id"].is_null())[0].as_py()
        raise DataError(f"a trace of distill answers the problem {unknown!r}, which curate does not have: redo distill")
    return list(zip(from_table(Trace, traces), from_table(Problem, rows), strict=True))


def _qualities(traces: Place, right: pa.Array, workers: int) -> Iterator[Quality]:
    """What the choice looks at, of the right traces, problem by problem. Their texts stay where they are."""
    known = ray.put(ById(pa.table({"trace_id": right}), "trace_id"))

    def qualities(batch: pa.Table) -> pa.Table:
        there = from_table(Trace, batch.filter(ray.get(known).has(batch["trace_id"])))
        return to_table(
            Quality, [quality(each.trace_id, each.problem_id, each.reasoning or each.response) for each in there]
        )

    found = tables.read(traces, Trace, workers).map_batches(qualities, batch_format="pyarrow")
    blocks = found.iter_batches(batch_format="pyarrow", batch_size=None)
    made = wide(pa.concat_tables([to_table(Quality, ()), *blocks], promote_options="permissive"))
    order = pc.sort_indices(made["problem_id"])
    for start in range(0, len(order), CHOSEN_AT_ONCE):
        yield from from_table(Quality, made.take(order.slice(start, CHOSEN_AT_ONCE)))


def _fates(qualities: Iterable[Quality], settings: Verify) -> pa.Table:
    fates = choose(qualities, settings)
    parts = [to_table(Fate, ())]
    while part := list(islice(fates, CHOSEN_AT_ONCE)):
        parts.append(to_table(Fate, part))
    return pa.concat_tables(parts)
