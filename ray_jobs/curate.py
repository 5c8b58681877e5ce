"""Runs stage 1 on Ray Data: files are read and filtered in tasks, rows compared with each other on the driver."""

import json
from collections.abc import Iterator
from typing import Any

import ray

from pipeline.config import Config
from pipeline.curate.duplicates import separate
from pipeline.curate.filters import examine
from pipeline.errors import DataError
from pipeline.records import Problem, Rejected, to_json
from pipeline.sources import files_of, read, read_benchmark
from pipeline.stage import Manifest, StageRun
from pipeline.storage import Place, write_rows
from ray_jobs import cluster
from ray_jobs.progress import Progress, Reporter


def run(config: Config) -> Manifest:
    """Make `1_curate/problems` and `1_curate/rejected`."""
    endpoint = config.storage.endpoint
    sources = [
        (index, file) for index, source in enumerate(config.curate.sources) for file in files_of(source, endpoint)
    ]
    asked = [file for benchmark in config.evaluate.benchmarks for file in files_of(benchmark, endpoint)]
    stage = StageRun(config, "curate", files=[*(file for _, file in sources), *asked])
    if stage.complete:
        return stage.complete
    files = [{"source": index, "uri": file.uri} for index, file in sources]
    benchmarks = [item for benchmark in config.evaluate.benchmarks for item in read_benchmark(benchmark, endpoint)]
    cluster.connect()
    cluster.require(config, "curate", count=1, cpus=1, setting="what else runs on the cluster")
    with Progress("curate", None, "rows") as progress:
        rows = ray.data.from_items(files, override_num_blocks=len(files)).flat_map(
            _examined, fn_args=(config, progress.reporter)
        )
        problems: list[Problem] = []
        rejected: list[Rejected] = []
        for row in rows.iter_rows():
            values = json.loads(row["record"])
            if row["kept"]:
                problems.append(Problem(**values))
            else:
                rejected.append(Rejected(**values))
    rows_in = len(problems) + len(rejected)
    kept, dropped = separate(problems, benchmarks)
    if not kept:
        raise DataError(
            f"no problem of {rows_in} is left after the filters: see curate.sources and curate.answer_types"
        )
    write_rows(stage.folder.table("problems"), Problem, kept)
    stage.reject(rejected + dropped)
    return stage.finish(
        rows_in=rows_in, rows_out=len(kept), tables={"problems": len(kept)}, ray_actors=cluster.actors()
    )


def _examined(file: dict[str, Any], config: Config, reporter: Reporter) -> Iterator[dict[str, Any]]:
    source = config.curate.sources[file["source"]]
    with reporter.telling():
        for row in read(Place(file["uri"], config.storage.endpoint), source.columns):
            record = examine(row, source, config.curate.answer_types)
            reporter.add(done=1)
            yield {"kept": isinstance(record, Problem), "record": to_json(record)}
    reporter.flush()
