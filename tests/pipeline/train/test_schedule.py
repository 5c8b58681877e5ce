"""The order in which rows are read: a function of seed, step and rank."""

import pytest

from pipeline.errors import DataError
from pipeline.records import PackedRow, to_table
from pipeline.storage import Place, write_table
from pipeline.train.schedule import Batch, PackedTable, Schedule


@pytest.fixture
def schedule(tmp_path):
    def made(rows: int, rows_per_step: int, epochs: int, seed: int = 0) -> Schedule:
        packed = [PackedRow([str(index)], [1], [index], [index], index) for index in range(rows)]
        for file, start in enumerate(range(0, rows, 4)):  # in files and row groups of their own
            table = to_table(PackedRow, packed[start : start + 4])
            write_table(Place(str(tmp_path / str(rows) / f"{file}.parquet")), table, row_group=3)
        return Schedule(PackedTable(tmp_path / str(rows)), rows_per_step=rows_per_step, epochs=epochs, seed=seed)

    return made


@pytest.mark.parametrize("world_size", [1, 2, 3, 4])
def test_every_row_is_read_once_an_epoch_and_ranks_read_equally_many(schedule, world_size):
    plan = schedule(rows=10, rows_per_step=4, epochs=3)
    assert plan.steps == 8
    stream = []
    for step in range(plan.steps):
        ranks = [plan.rows(step, rank, world_size) for rank in range(world_size)]
        assert {len(rows) for rows in ranks} == {-(-4 // world_size)}
        step_rows = [row.input_ids[0] for rows in ranks for row in rows if row.example_ids]
        assert sorted(step_rows) == sorted(plan.indices(step))
        assert plan.batch(step) == Batch(len(step_rows), sum(step_rows), len(step_rows))
        stream += plan.indices(step)
    for epoch in range(3):
        assert sorted(stream[10 * epoch : 10 * epoch + 10]) == list(range(10))
    assert stream[:10] != stream[10:20]


def test_the_order_depends_on_the_seed_alone(schedule):
    assert schedule(10, 2, 2).indices(3) == schedule(10, 2, 2).indices(3)
    assert schedule(10, 10, 1, seed=1).indices(0) != schedule(10, 10, 1, seed=2).indices(0)


def test_an_empty_table_is_refused(tmp_path):
    with pytest.raises(DataError, match="holds no packed rows"):
        PackedTable(tmp_path)
