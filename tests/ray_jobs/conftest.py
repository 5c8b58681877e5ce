"""Servers and clusters that the jobs' tests share: started once, and ended by those who started them."""

import logging
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import small
from local_servers import Teacher, free_port

logging.raiseExceptions = False
"""Ray's handlers may keep the captured stderr of an earlier test, which is closed: a warning of Ray's is then no news."""


SERVE_KEY = "LONGTHOUGHT_TEST_KEY"
"""The environment variable with the key of what is served, on all nodes of the tests' cluster."""


@pytest.fixture
def start_teacher() -> Iterator[Callable[..., Teacher]]:
    started: list[Teacher] = []

    def start(traces: Path, *options: str, port: int | None = None) -> Teacher:
        started.append(Teacher(traces, *options, port=port))
        return started[-1]

    yield start
    for teacher in started:
        teacher.end()


@pytest.fixture
def sums(tmp_path: Path) -> Path:
    """A folder with the problems, the held-out ones and the recorded traces of the small run."""
    small.write_problems(tmp_path)
    small.write_heldout(tmp_path)
    small.write_traces(tmp_path)
    return tmp_path


@pytest.fixture(scope="session")
def ray_cluster(s3: str, gcs: str) -> Iterator[None]:
    """One Ray for all tests of a session, with two CPUs however many the machine has.

    After `s3` and `gcs`, for its workers inherit what these set.
    """
    import ray

    from ray_jobs import cluster

    os.environ[SERVE_KEY] = "sesame"
    cluster.connect(num_cpus=2, address="local")  # not one that another program runs on this machine
    yield
    ray.shutdown()


@pytest.fixture(scope="session")
def s3() -> Iterator[str]:
    """An S3 server on loopback with the bucket `bucket`: its URL."""
    port = free_port()
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
    command = [str(Path(sys.executable).with_name("moto_server")), "-p", str(port)]
    with server(command, urllib.request.Request(f"http://127.0.0.1:{port}/bucket", method="PUT")):
        yield f"http://127.0.0.1:{port}"


@pytest.fixture(scope="session")
def gcs() -> Iterator[str]:
    """Google's storage on loopback, for all who ask for `gs://`, with the bucket `bucket`: its URL."""
    port = free_port()
    url = os.environ["STORAGE_EMULATOR_HOST"] = f"http://127.0.0.1:{port}"
    program = Path(__file__).parents[1] / "pipeline" / "gcs_server.py"
    with server([sys.executable, str(program), str(port), "bucket"], urllib.request.Request(url)):
        yield url


@contextmanager
def server(command: list[str], until: urllib.request.Request) -> Iterator[None]:
    """A program, from when it answers a request."""
    log = subprocess.DEVNULL
    process = subprocess.Popen(command, stdout=log, stderr=log)
    deadline = time.monotonic() + 60
    try:
        while True:
            try:
                urllib.request.urlopen(until, timeout=5)
                break
            except OSError:
                assert time.monotonic() < deadline, f"{command} did not start"
                time.sleep(0.2)
        yield
    finally:
        process.kill()
        process.wait()


@pytest.fixture
def aws(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """An account with its default network, and a home to write a key into."""
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "x")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "x")
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    from moto import mock_aws

    with mock_aws():
        yield
