"""Servers and clusters that the jobs' tests share: started once, and ended by those who started them."""

import logging
import os
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
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
def ray_cluster(s3: str) -> Iterator[None]:
    """One Ray for all tests of a session, with two CPUs however many the machine has.

    After `s3`, for its workers inherit the credentials.
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
    url = f"http://127.0.0.1:{port}"
    log = subprocess.DEVNULL
    process = subprocess.Popen(
        [str(Path(sys.executable).with_name("moto_server")), "-p", str(port)], stdout=log, stderr=log
    )
    os.environ.update(AWS_ACCESS_KEY_ID="test", AWS_SECRET_ACCESS_KEY="test", AWS_EC2_METADATA_DISABLED="true")
    deadline = time.monotonic() + 60
    while True:
        try:
            urllib.request.urlopen(urllib.request.Request(f"{url}/bucket", method="PUT"), timeout=5)
            break
        except OSError:
            assert time.monotonic() < deadline, "moto_server did not start"
            time.sleep(0.2)
    yield url
    process.kill()
    process.wait()
