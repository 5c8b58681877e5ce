"""Places on a disk and in buckets: read, written and listed, and failures in one line."""

import re
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from bad_line import BadLine
from conftest import BUCKET
from servers import REPO, free_port
from verdicts import verdicts

from pipeline import storage
from pipeline.errors import DataError
from pipeline.records import Verdict
from pipeline.storage import NamedErrors, Place, gcs, held, s3


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
