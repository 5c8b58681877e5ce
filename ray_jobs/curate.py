"""Runs stage 1 on Ray Data: tasks read the files, actors examine rows, the driver compares fingerprints.

What the actors find goes to `1_curate/examined` first, so that neither the driver nor the object store has to hold the
set: the driver's memory is that of the fingerprints, at most 1.3 kB for a problem. The table is deleted at the end.
"""

from collections import Counter
from collections.abc import Iterator
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import ray

from pipeline.config import Benchmark, Config, Curate
from pipeline.curate.duplicates import FINGERPRINT, fates
from pipeline.curate.examination import Examiner
from pipeline.errors import DataError, InvariantError
from pipeline.records import BenchmarkMatch, Problem, Rejected, arrow_schema, from_table, to_json, to_table
from pipeline.sources import RawRow, files_of, origin_of, read, read_benchmark
from pipeline.stage import Manifest, StageRun
from pipeline.storage import Place, batches, read_rows, write_rows
from ray_jobs import cluster, tables, worked
from ray_jobs.progress import Progress, Reporter

BATCH_ROWS = 2048
BLOCK_BYTES = 1 << 22
"""Of rows that go to the actors. In Ray's own 128 MiB a whole set would be one block, for one actor."""
RAW = pa.schema([pa.field("source", pa.int64()), pa.field("origin", pa.string()), *arrow_schema(RawRow)])


Counts = Counter[tuple[str, str | None]]
"""Rows by their source and the reason why they were dropped; None for those that stay."""
Parts = list[Place]


class ExamineActor:
    """Examines batches of rows."""

    def __init__(self, config: Config, benchmarks: Place, reporter: Reporter) -> None:
        with reporter.joins():
            self._sources = config.curate.sources
            self._examiner = Examiner(config.curate, read_rows(benchmarks, Problem))
            self._reporter = reporter

    def __call__(self, batch: pa.Table) -> pa.Table:
        columns = [column.to_pylist() for column in batch.columns]
        rows = [RawRow(*values) for values in zip(*columns[2:], strict=True)]
        with self._reporter.telling():
            examined = self._examiner.examine(rows, [self._sources[index] for index in columns[0]], columns[1])
        kept = len(rows) - examined["problem"].null_count
        self._reporter.add(done=len(rows), kept=kept)
        self._reporter.flush()
        return examined


def run(config: Config) -> Manifest:
    """Make `1_curate/problems`, `rejected` and `matches`."""
    endpoint, settings = config.storage.endpoint, config.curate
    sources = [(index, file) for index, source in enumerate(settings.sources) for file in files_of(source, endpoint)]
    looked_for_in = (*config.evaluate.benchmarks, *settings.benchmarks)
    asked = {(each.path, each.columns): each for each in reversed(looked_for_in)}.values()
    to_keep_out = [(each, _files_to_keep_out(each, config)) for each in asked]
    files = [*(file for _, file in sources), *(file for _, files_of_one in to_keep_out for file in files_of_one)]
    stage = StageRun(config, "curate", files=files)
    if stage.complete:
        return stage.complete
    benchmarks = [problem for each in to_keep_out for problem in read_benchmark(*each)]
    cluster.connect()
    cluster.require_actors(config, "curate")
    examined, looked_for = stage.folder.table("examined"), stage.folder.table("looked_for")
    write_rows(looked_for, Problem, benchmarks)
    with Progress("curate", None, "rows") as progress:
        items = [{"source": index, "uri": file.uri} for index, file in sources]
        files_in = ray.data.from_items(items, override_num_blocks=len(items))
        files_in.context.target_max_block_size = BLOCK_BYTES
        rows = files_in.map_batches(_read, batch_size=1, batch_format="pyarrow", fn_args=(config, progress.reporter))
        found = tables.actor_map(
            rows, ExamineActor, (config, looked_for, progress.reporter),
            actors=settings.actors, cpus=settings.actor_cpus, batch_rows=BATCH_ROWS,
        )  # fmt: skip
        tables.write_parts(found, examined)
    looked_for.delete()
    return _settled(config, stage, examined)


def _files_to_keep_out(benchmark: Benchmark, config: Config) -> list[Place]:
    try:
        return files_of(benchmark, config.storage.endpoint)
    except DataError as error:
        if "benchmarks" in config.curate.model_fields_set or benchmark in config.evaluate.benchmarks:
            raise
        hint = "or set curate.benchmarks to those that are to be kept out ([]: none but evaluate's)"
        raise DataError(f"{error}; {hint}") from None


def _settled(config: Config, stage: StageRun, examined: Place) -> Manifest:
    """Drop the duplicates and write the tables."""
    parts = examined.files(".parquet")
    fates_of_parts, counts = _compared(config.curate, parts)
    kept, rejected = _by_source(counts)
    stage.rejected = sum(map(Counter, rejected.values()), Counter())
    if not kept:
        examined.delete()
        most = ", ".join(f"{count} {reason}" for reason, count in stage.rejected.most_common(3))
        raise DataError(
            f"no problem of {counts.total()} is left ({most}): see curate.sources and the other settings of curate"
        )
    shared = ray.put(fates_of_parts)
    places = ray.data.from_items([{"part": index} for index in range(len(parts))], override_num_blocks=len(parts))

    def made(make: Any) -> "ray.data.Dataset":
        """The parts, each through a function of this module."""
        return places.map_batches(make, batch_size=1, batch_format="pyarrow", fn_args=(parts, shared))

    folder = stage.folder
    written = {
        "problems": tables.write(made(_problems).sort("problem_id"), folder.table("problems"), Problem),
        "matches": tables.write(made(_matches), folder.table("matches"), BenchmarkMatch),
    }
    dropped = tables.write(made(_rejected), folder.table("rejected"), Rejected)
    if dropped != stage.rejected.total():
        raise InvariantError(f"curate: {stage.rejected.total()} rows were rejected, but {dropped} written")
    examined.delete()
    return stage.finish(
        rows_in=counts.total(),
        rows_out=written["problems"],
        tables=written,
        **worked.figures(),
        kept_by_source=kept,
        rejected_by_source=rejected,
    )


def _compared(settings: Curate, parts: list[Place]) -> tuple[list[pa.Table], Counts]:
    """The fates of each part's problems, and what became of all rows."""
    outcomes, prints = zip(*map(_outcomes, parts), strict=True)
    same_givens = settings.duplicate_givens == "same"
    found = fates(pa.concat_tables(prints), settings.duplicate_threshold, same_givens=same_givens).combine_chunks()
    counts, of_parts, start = Counts(), [], 0
    for outcome, table in zip(outcomes, prints, strict=True):
        of_parts.append(found.slice(start, table.num_rows))
        start += table.num_rows
        later = iter(of_parts[-1]["reason"].to_pylist())
        reasons = (reason or next(later) for reason in outcome["reason"].to_pylist())
        counts.update(zip(outcome["source"].to_pylist(), reasons, strict=True))
    return of_parts, counts


def _outcomes(part: Place) -> tuple[pa.Table, pa.Table]:
    """Of each row its source and why it was dropped; of each problem its fingerprint."""
    names = ["source", "rejected.reason", *FINGERPRINT.names]
    table = pa.Table.from_batches(batches(part, names, 1 << 16))
    reasons = pc.struct_field(table["rejected"], "reason")
    outcome = pa.table({"source": table["source"], "reason": reasons})
    return outcome, table.filter(table["text"].is_valid()).select(FINGERPRINT.names)


def _by_source(counts: Counts) -> tuple[dict[str, int], dict[str, dict[str, int]]]:
    """The rows that stay, and the dropped ones by reason, of each source."""
    kept: dict[str, int] = {}
    rejected: dict[str, dict[str, int]] = {}
    for source, reason in sorted(counts, key=str):
        if reason is None:
            kept[source] = counts[source, reason]
        else:
            rejected.setdefault(source, {})[reason] = counts[source, reason]
    return kept, rejected


def _problems(item: pa.Table, parts: Parts, fates: Any) -> Iterator[pa.Table]:
    """The problems of a part that stay."""
    for problems, fate in _with_fates(item, parts, fates):
        yield problems.filter(fate["reason"].is_null())


def _rejected(item: pa.Table, parts: Parts, fates: Any) -> Iterator[pa.Table]:
    """The rows of a part that were dropped by themselves, and those that go as duplicates."""
    yield from _column(item, parts, "rejected", Rejected)
    for problems, fate in _with_fates(item, parts, fates):
        gone = fate["reason"].is_valid()
        rows = zip(
            from_table(Problem, problems.filter(gone)),
            *(column.to_pylist() for column in fate.filter(gone).columns),
            strict=True,
        )
        yield to_table(
            Rejected, [Rejected(row.problem_id, "curate", reason, detail, to_json(row)) for row, reason, detail in rows]
        )


def _matches(item: pa.Table, parts: Parts, _: Any) -> Iterator[pa.Table]:
    """The benchmark items that rows of a part resemble."""
    yield from _column(item, parts, "match", BenchmarkMatch)


def _with_fates(item: pa.Table, parts: Parts, fates: Any) -> Iterator[tuple[pa.Table, pa.Table]]:
    """The problems of a part in batches, each with its fate."""
    fate, start = ray.get(fates)[item["part"][0].as_py()], 0
    for problems in _column(item, parts, "problem", Problem):
        yield problems, fate.slice(start, problems.num_rows)
        start += problems.num_rows


def _column(item: pa.Table, parts: Parts, name: str, record: type) -> Iterator[pa.Table]:
    """The records in a column of a part, in batches, nulls left out."""
    for batch in batches(parts[item["part"][0].as_py()], [name], BATCH_ROWS):
        yield tables.records_in(batch.column(name), record)


def _read(item: pa.Table, config: Config, reporter: Reporter) -> Iterator[pa.Table]:
    """A file's rows, in tables of `RAW`."""
    index, uri = item["source"][0].as_py(), item["uri"][0].as_py()
    source, file = config.curate.sources[index], Place(uri, config.storage.endpoint)
    origin = origin_of(source, file)
    with reporter.telling():
        rows = read(file, source)
        while batch := list(islice(rows, BATCH_ROWS)):
            columns = [
                [index] * len(batch),
                [origin] * len(batch),
                *zip(*(vars(row).values() for row in batch), strict=True),
            ]
            yield pa.table(
                [pa.array(column, field.type) for column, field in zip(columns, RAW, strict=True)], schema=RAW
            )
