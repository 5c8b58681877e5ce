"""Tables on a disk and in buckets: whole or not at all, and failures in one line."""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from conftest import BUCKET
from servers import REPO
from verdicts import verdicts

from pipeline import storage
from pipeline.errors import DataError
from pipeline.records import Message, Problem, Step, Verdict
from pipeline.storage import Place


@pytest.mark.parametrize("rows", [0, 1, 7])
def test_a_table_keeps_its_rows_and_their_order(rows: int, place: Place) -> None:
    assert storage.write_rows(place / "t", Verdict, verdicts(9), rows_per_file=3) == 9
    assert storage.write_rows(place / "t", Verdict, verdicts(rows), rows_per_file=3) == rows
    assert len((place / "t").files(".parquet")) == max(1, -(-rows // 3))
    assert storage.read_rows(place / "t", Verdict) == verdicts(rows)
    assert storage.count_rows(place / "t", Verdict) == rows
    assert [row["trace_id"] for row in storage.iter_dicts(place / "t")] == [v.trace_id for v in verdicts(rows)]


def test_one_parquet_file_is_a_table_too(place: Place) -> None:
    storage.write_rows(place / "t", Verdict, verdicts(2))
    assert len(list(storage.iter_dicts(place / "t" / "00000.parquet"))) == 2


def test_a_missing_column_is_named(place: Place) -> None:
    storage.write_rows(place / "t", Verdict, verdicts(1))
    file = place / "t" / "00000.parquet"
    table = pq.read_table(file.path, filesystem=file.filesystem).drop_columns(["matched_by"])
    pq.write_table(table, file.path, filesystem=file.filesystem)
    with pytest.raises(DataError, match="lacks the column 'matched_by': redo the stage"):
        storage.read_rows(place / "t", Verdict)
    with pytest.raises(DataError, match="lacks the column 'matched_by': redo the stage"):
        list(storage.iter_dicts(place / "t", ["matched_by"]))


def test_columns_of_a_later_version_are_ignored(place: Place) -> None:
    folder = place / "t"
    folder.make_folder()
    table = pa.Table.from_pylist([{"role": "user", "content": "hi", "mood": "new"}])
    pq.write_table(table, f"{folder.path}/0.parquet", filesystem=folder.filesystem)
    assert storage.read_rows(folder, Message) == [Message("user", "hi")]


def test_a_table_that_is_not_there_or_no_parquet_is_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="holds no Parquet files"):
        storage.read_rows(Place(str(tmp_path)), Problem)
    (tmp_path / "0.parquet").write_bytes(b"garbage" * 10)
    with pytest.raises(DataError, match="is no Parquet") as caught:
        storage.read_rows(Place(str(tmp_path)), Step)
    assert "\n" not in str(caught.value)


READS = (
    lambda table: storage.read_rows(table, Verdict),
    lambda table: storage.read_slice(table, Verdict, 1, 2),
    lambda table: storage.rows_at(table, [1]),
    lambda table: list(storage.iter_dicts(table)),
    lambda table: list(storage.batches(table / "00000.parquet", None, 10)),
)


@pytest.mark.parametrize("read", READS)
def test_a_damaged_table_is_one_line_however_it_is_read(tmp_path: Path, read: Callable[[Place], object]) -> None:
    table = Place(str(tmp_path / "table"))
    storage.write_rows(table, Verdict, verdicts(1000))
    file = tmp_path / "table" / "00000.parquet"
    data = file.read_bytes()
    file.write_bytes(data[:4] + b"\xff" * 200 + data[204:])
    with pytest.raises(DataError, match=r"^cannot use '.*00000.parquet': .*: check [^\n]*$"):
        read(table)


def test_a_table_that_google_does_not_give_is_one_line(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def closed(*_: object, **__: object) -> None:
        raise ValueError("I/O operation on closed file")

    storage.write_rows(Place(str(tmp_path)), Verdict, verdicts(3))
    monkeypatch.setattr(pq, "ParquetFile", closed)
    with pytest.raises(DataError, match=r"^cannot use '.*00000.parquet': .*: check bucket, credentials and endpoint$"):
        storage.read_rows(Place(str(tmp_path)), Verdict)


def test_rows_at_positions_are_found_across_files(place: Place) -> None:
    storage.write_rows(place, Verdict, verdicts(300), rows_per_file=140)
    wanted = [299, 0, 139, 140, 65, 64, 64]
    assert [row["trace_id"] for row in storage.rows_at(place, wanted)] == [
        "0000",
        "0064",
        "0065",
        "0139",
        "0140",
        "0299",
    ]
    assert storage.rows_at(place, [300]) == [] and storage.rows_at(place, []) == []
    assert storage.read_columns(place, ["trace_id"])["trace_id"].to_pylist() == [f"{i:04d}" for i in range(300)]


READER = """
import sys
from pipeline import storage
place = storage.Place(*sys.argv[1:])
next(storage.iter_dicts(place))
storage.read_columns(place, ["trace_id"])
"""


def test_a_process_that_read_a_table_in_a_bucket_ends_well(s3_endpoint: str) -> None:
    place = Place(f"s3://{BUCKET}/ends", s3_endpoint)
    storage.write_rows(place, Verdict, verdicts(80), rows_per_file=10)
    command = [sys.executable, "-c", READER, place.uri, s3_endpoint]
    for _ in range(6):
        assert subprocess.run(command, cwd=REPO, timeout=30).returncode == 0
