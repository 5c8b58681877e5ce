"""Places and tables on a disk and on S3: whole or not at all, and failures in one line."""

import gzip
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from pathlib import Path
from typing import Any

import boto3
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from bad_line import BadLine
from conftest import BUCKET
from servers import REPO, free_port

from pipeline import storage
from pipeline.errors import DataError
from pipeline.records import Message, Problem, Step, Verdict
from pipeline.storage import NamedErrors, Place, bucket, folders, gcs, held, s3


def verdicts(count: int) -> list[Verdict]:
    return [Verdict(f"{i:04d}", "symbolic", "correct", None if i % 2 else "é", "number", 0.1) for i in range(count)]


def test_a_place_is_written_read_listed_and_deleted(place: Place) -> None:
    assert not place.exists() and place.files() == []
    for name, data in (("b/2.txt", b"two"), ("b/1.txt", b"one"), ("a.bin", b"\0\xff" * 1000), ("b/empty.txt", b"")):
        (place / name).write(data)
        assert (place / name).read() == data
    assert [file.uri for file in place.files()] == [
        f"{place.uri}/{n}" for n in ("a.bin", "b/1.txt", "b/2.txt", "b/empty.txt")
    ]
    assert [file.name for file in place.files(".txt")] == ["1.txt", "2.txt", "empty.txt"]
    assert (place / "b").is_folder() and not (place / "a.bin").is_folder()
    (place / "a.bin").write(b"new")
    assert (place / "a.bin").read() == b"new"
    (place / "a.bin").delete()
    (place / "a.bin").delete()
    (place / "b").delete()
    assert not (place / "a.bin").exists() and not (place / "b").exists()


def test_any_uri_that_fsspec_knows_is_a_place() -> None:
    root = Place("memory://longthought-test")
    storage.write_rows(root / "table", Verdict, verdicts(3))
    (root / "note.txt").write(b"hi")
    assert storage.read_rows(root / "table", Verdict) == verdicts(3)
    assert [file.uri for file in root.files()] == [f"{root}/note.txt", f"{root}/table/00000.parquet"]
    root.delete()
    assert not root.exists()


@pytest.mark.parametrize("name", ["with space", "é∑", "a#b?c", "100%20", "*"])
def test_names_with_odd_characters_are_names(name: str, place: Place) -> None:
    (place / name / "file.txt").write(b"x")
    assert (place / name).files() == [place / name / "file.txt"]
    assert (place / name / "file.txt").read() == b"x"


def test_a_file_uri_is_local(tmp_path: Path) -> None:
    place = Place(f"file://{tmp_path}/x.txt")
    place.write(b"1")
    assert place.is_local and (tmp_path / "x.txt").read_bytes() == b"1"


LIMITED = """
import resource, signal, sys
from pipeline.storage import Place, held
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
Place(sys.argv[1]).write(b"new" * 1000)
"""


def test_a_full_disk_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    target = tmp_path / "manifest.json"
    Place(str(target)).write(b"old")
    child = subprocess.run([sys.executable, "-c", LIMITED, str(target)], cwd=REPO, capture_output=True, text=True)
    assert child.returncode != 0 and "File too large" in child.stderr
    assert target.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [target]


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


def test_a_missing_file_is_one_line(place: Place) -> None:
    with pytest.raises(DataError, match=r"none\.txt' does not exist: check the (bucket and the )?path$"):
        (place / "none.txt").read()


def one_line(caught: pytest.ExceptionInfo[DataError], place: Place) -> None:
    message = str(caught.value)
    assert "\n" not in message and re.search(
        f"{place.uri!r}.*check (bucket, credentials and endpoint|the bucket and the path)$", message
    )


class Store:
    """A kind of object storage."""

    def __init__(self, scheme: str, url: str, patch: pytest.MonkeyPatch) -> None:
        self.scheme, self.url, self._patch = scheme, url, patch

    def place(self, path: str, url: str | None = None) -> Place:
        """By its path with the bucket; asked for at another URL where one is given."""
        self._patch.setenv("STORAGE_EMULATOR_HOST", url or self.url)
        gcs.filesystem.cache_clear()
        return Place(f"{self.scheme}://{path}", (url or self.url) if self.scheme == "s3" else None)

    def bad_line(self, **faults: Any) -> BadLine:
        return BadLine(self.url, **faults)


@pytest.fixture(params=["s3", "gs"])
def store(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Store]:
    yield Store(request.param, request.getfixturevalue("s3_endpoint" if request.param == "s3" else "gcs"), monkeypatch)
    gcs.filesystem.cache_clear()


def test_a_missing_bucket_is_one_line(store: Store) -> None:
    place = store.place("no-such-bucket/run/x")
    with pytest.raises(DataError) as caught:
        place.write(b"x")
    one_line(caught, place)
    with pytest.raises(DataError):
        storage.write_rows(place, Verdict, verdicts(1))


def test_an_unreachable_store_is_one_line(store: Store, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gcs, "_PATIENCE", timedelta(seconds=2))
    place = store.place("bucket/run", f"http://127.0.0.1:{free_port()}")
    with pytest.raises(DataError) as caught:
        place.exists()
    one_line(caught, place)


def test_an_unreachable_aws_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(bucket: str) -> str:
        raise OSError(f"Bucket {bucket!r} not found\nsecond line")

    monkeypatch.setattr(s3, "region", unknown)
    place = Place("s3://no-such-bucket/run/x")
    for ask in (lambda: place.path, lambda: place.name, place.files, place.read, held(place).__enter__):
        with pytest.raises(DataError) as caught:
            ask()
        one_line(caught, place)


@pytest.mark.parametrize("endpoint", ["minio:9000", "127.0.0.1:9000", "ftp://host", "http://"])
def test_an_endpoint_that_is_no_url_is_one_line(endpoint: str) -> None:
    place = Place("s3://bucket/run", endpoint)
    for ask in (place.exists, held(place).__enter__):
        with pytest.raises(DataError, match=f"^'{endpoint}' is no URL of an S3 service: give one like http://"):
            ask()


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


@pytest.mark.parametrize("uri", ["s3:///run", "gs:///run", "s3://bu cket/run", "gs://anonymous@bucket/run"])
def test_a_uri_without_a_bucket_is_one_line(uri: str) -> None:
    for ask in (Place(uri).exists, held(Place(uri)).__enter__):
        with pytest.raises(DataError, match=r"^'.*' names no bucket: write (s3|gs)://bucket/path"):
            ask()


def test_an_error_without_a_text_is_named_by_its_kind() -> None:
    with pytest.raises(DataError, match="cannot use '/x': TimeoutError: check"), NamedErrors(Place("/x")):
        raise TimeoutError


def test_a_uri_that_nothing_opens_is_one_line() -> None:
    with pytest.raises(DataError, match=r"cannot open 'nosuch://bucket/x'.*use a local path, s3:// or gs://"):
        Place("nosuch://bucket/x").read()


def test_a_folder_under_a_file_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(DataError) as caught:
        Place(str(tmp_path / "file" / "run" / "x")).write(b"")
    assert "\n" not in str(caught.value) and str(tmp_path) in str(caught.value)


def test_a_folder_of_files_goes_up_and_comes_down_whole(place: Place, tmp_path: Path) -> None:
    model = tmp_path / "model"
    (model / "deep").mkdir(parents=True)
    (model / "config.json").write_bytes(b"{}")
    (model / "deep" / "weights").write_bytes(bytes(3 << 20))
    storage.upload(model, place / "models" / "m")
    fetched = storage.fetch(place / "models" / "m", tmp_path / "cache")
    assert {str(p.relative_to(fetched)): p.stat().st_size for p in fetched.rglob("*") if p.is_file()} == {
        "config.json": 2,
        "deep/weights": 3 << 20,
    }
    assert storage.fetch(place / "models" / "m", tmp_path / "cache") == fetched


def test_a_file_too_large_for_a_stream_goes_up_in_parts(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """S3 takes 10,000 parts, and pyarrow's are of 10 MiB whatever the size."""
    monkeypatch.setattr(folders, "LARGEST_STREAM", 20 << 20)
    monkeypatch.setattr(bucket, "MOST_PARTS", 2)
    (tmp_path / "step/deep").mkdir(parents=True)
    data = os.urandom(25 << 20)
    (tmp_path / "step/deep/states ?.pt").write_bytes(data)
    (tmp_path / "step/latest").write_bytes(b"1")
    target = Place(f"s3://{BUCKET}/{tmp_path.name}/large", s3_endpoint)
    storage.upload(tmp_path / "step", target)
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    tag = client.head_object(Bucket=BUCKET, Key=f"{tmp_path.name}/large/deep/states ?.pt")["ETag"]
    assert tag.strip('"').endswith("-2")
    back = storage.fetch(target, tmp_path / "back")
    assert (back / "deep/states ?.pt").read_bytes() == data and (back / "latest").read_bytes() == b"1"
    stalls = {"partNumber=2": 60.0}
    monkeypatch.setattr(bucket, "PART_S", 3.0)
    with BadLine(s3_endpoint, slow=stalls) as line, ThreadPoolExecutor() as threads:
        stalled = Place(f"s3://{BUCKET}/{tmp_path.name}/stalled.pt", line.url)
        put = threads.submit(bucket.put, tmp_path / "step/deep/states ?.pt", stalled)
        while not line.slowed:
            time.sleep(0.1)
        stalls.clear()
        put.result(timeout=40)
        assert stalled.read() == data
    nowhere = Place("s3://nobody-has-this/x", s3_endpoint)
    with pytest.raises(
        DataError, match=r"^cannot use 's3://nobody-has-this/x'.*check bucket, credentials and endpoint$"
    ):
        bucket.put(tmp_path / "step/deep/states ?.pt", nowhere)


def test_other_content_is_fetched_anew(s3_endpoint: str, tmp_path: Path) -> None:
    source = Place(f"s3://{BUCKET}/{tmp_path.name}/model", s3_endpoint)
    (source / "w").write(b"old")
    first = storage.fetch(source, tmp_path / "cache")
    (source / "w").write(b"newer")
    second = storage.fetch(source, tmp_path / "cache")
    assert ((first / "w").read_bytes(), (second / "w").read_bytes()) == (b"old", b"newer")
    folders = [path.name for path in (tmp_path / "cache").iterdir() if path.is_dir()]
    assert sorted(folders) == sorted([first.name, second.name])


def test_what_is_not_there_cannot_be_fetched(s3_endpoint: str, tmp_path: Path) -> None:
    with pytest.raises(DataError, match="does not exist"):
        storage.fetch(Place(f"s3://{BUCKET}/{tmp_path.name}/none", s3_endpoint), tmp_path)


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


WORK = """
import pickle, sys
import pyarrow as pa
from pathlib import Path
from pipeline import storage
from pipeline.records import Verdict
from pipeline.storage import Place
root = Place(sys.argv[1], sys.argv[2] or None)
away = pickle.loads(pickle.dumps(root.filesystem))  # as it goes to another process
verdicts = [Verdict(f"{i}", "symbolic", "correct", None, "number", 0.1) for i in range(5)]
for number in range(int(sys.argv[3])):
    storage.write_rows(root / f"{number}", Verdict, verdicts)
    assert storage.read_rows(root / f"{number}", Verdict) == verdicts
    graders = [row["grader"] for row in storage.iter_dicts(root / f"{number}", ["grader"])]  # a short range
    assert graders == ["symbolic"] * 5
    with away.open_output_stream(f"{root.path}/away/{number}") as stream:
        stream.write(b"there")
    with away.open_input_stream(f"{root.path}/away/{number}") as stream:
        assert stream.read() == b"there"
    assert storage.fetch(root / "away", Path(sys.argv[4])).joinpath(f"{number}").read_bytes() == b"there"
    assert len(root.files()) == 2 * (number + 1)
groups = 5 * int(sys.argv[3])
storage.write_table(root / "groups.parquet", pa.table({"short": ["x"] * groups, "long": ["y" * 9999] * groups}), row_group=1)
assert storage.read_columns(root / "groups.parquet", ["short"]).num_rows == groups
assert sum(1 for _ in storage.iter_dicts(root / "groups.parquet", ["short"])) == groups
"""
"""In a process of its own: pyarrow waits for Google's storage without letting other threads of Python work, those of a bad line here too."""


def test_busy_storage_is_asked_again(store: Store, tmp_path: Path) -> None:
    # Google's client makes pauses of seconds, and hears nothing for two minutes before it asks again.
    tables, busy, silent = (12, 0.2, 0.01) if store.scheme == "s3" else (2, 0.1, 0.0)
    with store.bad_line(busy=busy, silent=silent) as line:
        root = store.place(f"{BUCKET}/{tmp_path.name}", line.url)
        arguments = [root.uri, root.endpoint or "", str(tables), str(tmp_path)]
        subprocess.run([sys.executable, "-c", WORK, *arguments], check=True, cwd=REPO, timeout=110)
        if store.scheme == "s3":
            assert line.refused > 100 and line.lost > 1  # more than pyarrow's own allowance of retries lasts for
        else:
            assert line.refused > 1


def test_storage_that_lets_nobody_in_is_said_in_one_line(store: Store) -> None:
    with store.bad_line(denied=("GET", "HEAD", "PUT", "POST")) as line:
        root = store.place(f"{BUCKET}/denied", line.url)
        for work in ((root / "a").exists, lambda: (root / "a").write(b"x"), held(root).__enter__):
            with pytest.raises(
                DataError, match=r"^cannot use '(s3|gs)://.*check bucket, credentials and endpoint$"
            ) as told:
                work()
            assert "\n" not in str(told.value)


@pytest.mark.parametrize("name", ["a.json.gz", "b.bz2", "deep/c.txt"])
def test_what_is_written_or_brought_somewhere_comes_back_as_it_was(name: str, place: Place, tmp_path: Path) -> None:
    (tmp_path / "from" / name).parent.mkdir(parents=True)
    data = gzip.compress(b"x" * 1000)
    (tmp_path / "from" / name).write_bytes(data)
    storage.upload(tmp_path / "from", place / "to")
    assert storage.fetch(place / "to", tmp_path / "back").joinpath(name).read_bytes() == data
    (place / "written" / name).write(data)
    assert storage.fetch(place / "written", tmp_path / "back").joinpath(name).read_bytes() == data


READS = """
import sys
from pipeline import storage
place = storage.Place(*sys.argv[1:])
next(storage.iter_dicts(place))
storage.read_columns(place, ["trace_id"])
"""


def test_a_process_that_read_a_table_in_a_bucket_ends_well(s3_endpoint: str) -> None:
    place = Place(f"s3://{BUCKET}/ends", s3_endpoint)
    storage.write_rows(place, Verdict, verdicts(80), rows_per_file=10)
    command = [sys.executable, "-c", READS, place.uri, s3_endpoint]
    for _ in range(6):
        assert subprocess.run(command, cwd=REPO, timeout=30).returncode == 0


def test_a_file_that_would_leave_its_folder_is_not_fetched(s3_endpoint: str, tmp_path: Path) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    client.put_object(Bucket=BUCKET, Key="model/../../outside.txt", Body=b"x")
    with pytest.raises(DataError, match="would be written outside of its folder"):
        storage.fetch(Place(f"s3://{BUCKET}/model", s3_endpoint), tmp_path / "deep" / "cache")
    assert not list(tmp_path.rglob("outside.txt"))
