"""Packs the examples of both stages with Ray Data: each task a part of a table, into a file of its own."""

import json
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

import pyarrow as pa
import ray

from pipeline.config import Config, Optimization
from pipeline.errors import DataError
from pipeline.records import Example, PackedRow, Rejected, TrainStage, to_table
from pipeline.stage import StageFolder
from pipeline.storage import Place, count_rows, read_slice, write_table
from ray_jobs import tables
from ray_jobs.progress import Progress, Reporter

ROW_GROUP = 32
"""Packed rows that are read together: a rank reads few at a time, from anywhere."""


@dataclass(frozen=True)
class Packed:
    """The packed tables of both stages: examples in all, why some are left out, rows of each table, optimizer steps of each."""

    examples: int
    reasons: list[str]
    rows: dict[TrainStage, int]
    steps: dict[TrainStage, int]


@dataclass(frozen=True)
class _Work:
    """What is packed where. `chosen` refers to the ids of the examples that are used (None for all)."""

    examples: Place
    packed: Place
    optimization: Optimization
    chosen: Any


class PackActor:
    """Tokenizes and packs shards."""

    def __init__(self, config: Config, base: str, work: dict[str, _Work], reporter: Reporter) -> None:
        from pipeline.train import model

        with reporter.joins():
            self._settings, self._work, self._reporter = config.train, work, reporter
            self._chosen = {stage: ray.get(each.chosen) for stage, each in work.items()}
            self._tokenizer = model.load_tokenizer(model.find(base, config.storage.endpoint, weights=False))

    def __call__(self, batch: pa.Table) -> pa.Table:
        """Write the rows of each shard; give back what is left out."""
        from pipeline.train.prepare import pack_shard

        rejected: list[Rejected] = []
        for shard in batch.to_pylist():
            work, chosen = self._work[shard["stage"]], self._chosen[shard["stage"]]
            examples = read_slice(work.examples, Example, shard["start"], shard["stop"])
            with self._reporter.telling():
                rows, dropped = pack_shard(examples, self._tokenizer, self._settings, work.optimization, chosen)
            if rows:
                file = work.packed / f"{shard['index']:06d}.parquet"
                write_table(file, to_table(PackedRow, rows), row_group=ROW_GROUP)
            rejected += dropped
            self._reporter.add(done=len(examples))
        self._reporter.flush()
        return to_table(Rejected, rejected)


def pack(config: Config, base: str, folder: StageFolder, recipe: str) -> Packed:
    """Make `packed_stage1`, `packed_stage2`, and `rejected`: what was left out.

    Nothing is made again that was made by the same `recipe`, a hash of all that decides it.
    """
    from pipeline.train.prepare import EXAMPLES_OF
    from pipeline.train.schedule import steps_of

    examples = {stage: StageFolder(folder.root, made_by).table("examples") for stage, made_by in EXAMPLES_OF.items()}
    counts = {stage: count_rows(table, Example) for stage, table in examples.items()}
    made = folder.place / "packed.json"
    if not made.exists() or json.loads(made.read()) != recipe:
        made.delete()
        _pack(config, base, folder, examples, sum(counts.values()))
    rows: dict[TrainStage, int] = {}
    steps: dict[TrainStage, int] = {}
    for stage, made_by in EXAMPLES_OF.items():
        packed, optimization = folder.table(f"packed_{stage}"), config.train.optimization(stage)
        if not packed.files(".parquet"):
            raise DataError(
                f"{stage} has nothing to train on: of {counts[stage]} examples of {made_by} none has at most "
                f"train.{stage}.max_length = {optimization.max_length} tokens: raise it, or see why {made_by} made so few"
            )
        rows[stage] = count_rows(packed, PackedRow)
        steps[stage] = steps_of(rows[stage], rows_per_step=optimization.rows_per_step, epochs=optimization.epochs)
    made.write(json.dumps(recipe).encode())
    return Packed(sum(counts.values()), tables.reasons(folder.table("rejected")), rows, steps)


def _pack(config: Config, base: str, folder: StageFolder, examples: Mapping[TrainStage, Place], count: int) -> None:
    from pipeline.train.prepare import shards

    settings = config.train
    work: dict[str, _Work] = {}
    parts: list[dict[str, Any]] = []
    for stage, table in examples.items():
        packed, optimization = folder.table(f"packed_{stage}"), settings.optimization(stage)
        cuts, chosen = shards(table, optimization)
        work[stage] = _Work(table, packed, optimization, ray.put(chosen))
        parts += [{"stage": stage, **asdict(cut)} for cut in cuts]
        packed.delete()
        packed.make_folder()
    if not parts:
        return
    with Progress("pack", count, "examples") as progress:
        dropped = tables.actor_map(
            ray.data.from_items(parts, override_num_blocks=len(parts)),
            PackActor,
            (config, base, work, progress.reporter),
            actors=max(1, min(len(parts), settings.workers)),
            cpus=min(1, settings.worker_cpus),
            batch_rows=1,
        )
        tables.write(dropped, folder.table("rejected"), Rejected)
