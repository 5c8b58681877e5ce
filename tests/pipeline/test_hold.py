"""One run at a time in a root: on a disk, and in a bucket of a real S3 server."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from bad_line import BadLine
from conftest import BUCKET

from pipeline.config import Config
from pipeline.errors import DataError, ResourceError
from pipeline.stage import StageRun
from pipeline.storage import Place, hold

TAKE = """
import signal, sys, time
from pipeline.storage import Place, hold
signal.signal(signal.SIGINT, signal.default_int_handler)
with hold.held(Place(sys.argv[1], sys.argv[2] or None)):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture(autouse=True)
def interruptible() -> None:
    """As a run is: a shell's background processes begin with SIGINT ignored."""
    signal.signal(signal.SIGINT, signal.default_int_handler)


@pytest.fixture
def root(place: Place, monkeypatch: pytest.MonkeyPatch) -> Place:
    monkeypatch.setattr(hold, "RENEW_S", 0.2)
    for name in ("STALE_S", "GCS_STALE_S"):
        monkeypatch.setattr(hold, name, 2.0)
    return place


@contextlib.contextmanager
def another(root: Place) -> Iterator[subprocess.Popen[str]]:
    """Another process that holds the root."""
    command = [sys.executable, "-c", TAKE, root.uri, root.endpoint or ""]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True, env=environment)
    assert process.stdout is not None and process.stdout.readline() == "held\n"
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def test_a_second_run_is_refused_naming_the_first(place: Place, capsys: pytest.CaptureFixture[str]) -> None:
    with another(place) as first:
        said = rf"is held by another run: .*\(process {first.pid}\), since .*: wait for its end, or use another"
        with pytest.raises(ResourceError, match=said), hold.held(place):
            raise AssertionError
    assert not capsys.readouterr().out, "the refusal is all that is said"


def test_what_a_killed_run_held_is_taken_over(root: Place) -> None:
    with another(root) as first:
        first.kill()
        first.wait()
        started = time.monotonic()
        with hold.held(root):
            assert time.monotonic() - started < 10


def test_a_root_is_free_at_once_when_its_run_is_over(root: Place, capsys: pytest.CaptureFixture[str]) -> None:
    for _ in range(3):
        started = time.monotonic()
        with hold.held(root):
            time.sleep(0.5)
        assert time.monotonic() - started < 1.9
    assert not capsys.readouterr().out


@pytest.mark.parametrize("stale", [False, True])
def test_of_many_that_come_at_once_one_gets_it(root: Place, stale: bool) -> None:
    if stale:
        with another(root):  # is killed
            pass
    got, refused, gate = [], [], threading.Barrier(6)

    def come() -> None:
        gate.wait()
        try:
            with hold.held(root):
                got.append(1)
                time.sleep(1.5)
        except ResourceError:
            refused.append(1)

    threads = [threading.Thread(target=come) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert (len(got), len(refused)) == (1, 5)


def test_a_run_that_was_paused_and_taken_over_ends_when_it_goes_on(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "RENEW_S", 0.2)
    monkeypatch.setattr(hold, "STALE_S", 2.0)
    root = Place(f"s3://{BUCKET}/{tmp_path.name}", s3_endpoint)
    with another(root) as paused:
        paused.send_signal(signal.SIGSTOP)
        with hold.held(root):
            paused.send_signal(signal.SIGCONT)
            assert paused.wait(30) not in (0, None)
            found = hold._File(root).read()
            assert found is not None and str(os.getpid()) in found.holder and not found.released


def test_a_run_whose_hold_was_taken_over_ends(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "RENEW_S", 0.2)
    root = Place(f"s3://{BUCKET}/{tmp_path.name}", s3_endpoint)
    with pytest.raises(ResourceError, match="was taken over by another run"), hold.held(root):
        file = hold._File(root)
        found = file.read()
        assert found is not None and file.write({"holder": "another"}, replacing=found.version)
        time.sleep(20)
    found = hold._File(root).read()
    assert found is not None and found.holder == "another" and not found.released


def test_a_stage_is_not_called_complete_in_a_root_that_another_run_has_taken(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, demo_tree: dict[str, Any]
) -> None:
    # As after a pause of the whole machine, before the thread that renews has looked; and storage answers again only after a while.
    monkeypatch.setattr(hold, "ANSWER_S", 0.3)
    root = Place(f"s3://{BUCKET}/{tmp_path.name}", s3_endpoint)
    demo_tree["storage"] = {"root": root.uri, "endpoint": s3_endpoint}
    stage = StageRun(Config.model_validate(demo_tree), "curate")
    with (
        BadLine(s3_endpoint) as line,
        pytest.raises(ResourceError, match="was taken over by another run"),
        hold.held(reached := Place(root.uri, line.url)),
    ):
        monkeypatch.setitem(hold._bucket_holds, stage.root, hold._bucket_holds[reached])
        hold.confirm(root)
        hold.confirm(root / "of another run")
        found = hold._File(root).read()
        assert found is not None and hold._File(root).write({"holder": "another"}, replacing=found.version)
        line.share(silent=1.0)
        threading.Timer(2, line.share).start()
        stage.finish(rows_in=0, rows_out=0, tables={})
        raise AssertionError
    hold.confirm(reached)  # of a hold that has ended there is nothing to ask
    assert line.lost > 1 and stage.folder.manifest() is None


def test_a_hold_that_cannot_be_renewed_for_whatever_reason_ends_the_run(
    root: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    if root.is_local:
        pytest.skip("a lock of the operating system is not renewed")
    monkeypatch.setattr(hold, "ANSWER_S", 0.3)

    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("out of threads")

    with pytest.raises(ResourceError, match="took no renewal"), hold.held(root):
        monkeypatch.setattr(hold._File, "write", broken)
        time.sleep(60)


@pytest.mark.parametrize("fault", ["answers_lost", "mute", "silent"])
def test_a_renewal_whose_answer_is_lost_is_no_loss(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, fault: str
) -> None:
    # The client repeats a request that was cut; it or the next one finds what the first one wrote.
    monkeypatch.setattr(hold, "RENEW_S", 0.2)
    monkeypatch.setattr(hold, "ANSWER_S", 0.3)
    monkeypatch.setattr(hold, "STALE_S", 20.0)
    with BadLine(s3_endpoint, **{fault: 0.3}) as line:
        root = Place(f"s3://{BUCKET}/{tmp_path.name}", line.url)
        with hold.held(root):
            time.sleep(6)
        assert line.lost > 3


def test_a_hold_that_storage_does_not_take_any_more_ends_the_run(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(hold, "RENEW_S", 0.2)
    monkeypatch.setattr(hold, "ANSWER_S", 0.3)
    monkeypatch.setattr(hold, "STALE_S", 3.0)
    with BadLine(s3_endpoint) as line:
        root = Place(f"s3://{BUCKET}/{tmp_path.name}", line.url)
        with pytest.raises(ResourceError, match=r"took no renewal for \d s, and another run may come"), hold.held(root):
            line.share(silent=1.0)
            time.sleep(60)


def test_a_root_that_cannot_be_written_is_said_in_one_line(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / ".hold.lock").mkdir()
    with pytest.raises(DataError, match=r"cannot use .*: check the path"), hold.held(Place(str(tmp_path / "run"))):
        raise AssertionError


def test_a_bucket_that_is_not_there_is_said_in_one_line(s3_endpoint: str) -> None:
    with (
        pytest.raises(DataError, match=r"cannot use 's3://nowhere/run': .*check bucket") as told,
        hold.held(Place("s3://nowhere/run", s3_endpoint)),
    ):
        raise AssertionError
    assert "\n" not in str(told.value)


def test_an_endpoint_is_of_s3_alone() -> None:
    hold._File(Place("gs://bucket/run", "http://127.0.0.1:9"))


@pytest.mark.parametrize("name", ["with space", "é∑", "a#b?c", "100%20"])
def test_the_hold_lies_in_the_root_whatever_its_name(place: Place, name: str) -> None:
    with hold.held(place / name):
        assert "holder" in json.loads((place / name / hold.NAME).read())
