"""Folders of files that go up and come down: as they were, of any size, and never outside of their folder."""

import gzip
import os
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import boto3
import pytest
from bad_line import BadLine
from conftest import BUCKET

from pipeline import storage
from pipeline.errors import DataError
from pipeline.storage import Place, bucket, folders


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
    if not place.is_local:  # in place
        light = storage.fetch(place / "models" / "m", tmp_path / "light", (".txt", ".json"))
        assert [path.name for path in light.iterdir()] == ["config.json"]


@pytest.fixture
def large(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A file that is too large for a stream: S3 takes 10,000 parts, and pyarrow's are of 10 MiB whatever the size."""
    monkeypatch.setattr(folders, "LARGEST_STREAM", 20 << 20)
    monkeypatch.setattr(bucket, "MOST_PARTS", 2)
    file = tmp_path / "step/deep/states ?.pt"
    file.parent.mkdir(parents=True)
    file.write_bytes(os.urandom(25 << 20))
    return file


def test_a_file_too_large_for_a_stream_goes_up_in_parts(s3_endpoint: str, large: Path, tmp_path: Path) -> None:
    (tmp_path / "step/latest").write_bytes(b"1")
    target = Place(f"s3://{BUCKET}/{tmp_path.name}/large", s3_endpoint)
    storage.upload(tmp_path / "step", target)
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    tag = client.head_object(Bucket=BUCKET, Key=f"{tmp_path.name}/large/deep/states ?.pt")["ETag"]
    assert tag.strip('"').endswith("-2")
    back = storage.fetch(target, tmp_path / "back")
    assert (back / "deep/states ?.pt").read_bytes() == large.read_bytes() and (back / "latest").read_bytes() == b"1"


def test_a_part_that_stalls_is_sent_again(
    s3_endpoint: str, large: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    stalls = {"partNumber=2": 60.0}
    monkeypatch.setattr(bucket, "PART_S", 3.0)
    with BadLine(s3_endpoint, slow=stalls) as line, ThreadPoolExecutor() as threads:
        stalled = Place(f"s3://{BUCKET}/{tmp_path.name}/stalled.pt", line.url)
        put = threads.submit(bucket.put, large, stalled)
        while not line.slowed:
            time.sleep(0.1)
        stalls.clear()
        put.result(timeout=40)
        assert stalled.read() == large.read_bytes()


def test_a_large_file_for_a_bucket_that_is_not_there_is_one_line(s3_endpoint: str, large: Path) -> None:
    nowhere = Place("s3://nobody-has-this/x", s3_endpoint)
    with pytest.raises(
        DataError, match=r"^cannot use 's3://nobody-has-this/x'.*check bucket, credentials and endpoint$"
    ):
        bucket.put(large, nowhere)


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


@pytest.mark.parametrize("name", ["a.json.gz", "b.bz2", "deep/c.txt"])
def test_what_is_written_or_brought_somewhere_comes_back_as_it_was(name: str, place: Place, tmp_path: Path) -> None:
    (tmp_path / "from" / name).parent.mkdir(parents=True)
    data = gzip.compress(b"x" * 1000)
    (tmp_path / "from" / name).write_bytes(data)
    storage.upload(tmp_path / "from", place / "to")
    assert storage.fetch(place / "to", tmp_path / "back").joinpath(name).read_bytes() == data
    (place / "written" / name).write(data)
    assert storage.fetch(place / "written", tmp_path / "back").joinpath(name).read_bytes() == data


def test_a_file_that_would_leave_its_folder_is_not_fetched(s3_endpoint: str, tmp_path: Path) -> None:
    client = boto3.client("s3", endpoint_url=s3_endpoint, region_name="us-east-1")
    client.put_object(Bucket=BUCKET, Key="model/../../outside.txt", Body=b"x")
    with pytest.raises(DataError, match="would be written outside of its folder"):
        storage.fetch(Place(f"s3://{BUCKET}/model", s3_endpoint), tmp_path / "deep" / "cache")
    assert not list(tmp_path.rglob("outside.txt"))
