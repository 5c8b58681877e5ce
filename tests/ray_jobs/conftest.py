"""Servers and clusters that the jobs' tests share: started once, and ended by those who started them."""

import json
import os
import socket
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import small


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Teacher:
    """A replay teacher in a process of its own."""

    def __init__(self, traces: Path, *options: str, port: int | None = None) -> None:
        self.port = port or free_port()
        self.url = f"http://127.0.0.1:{self.port}/v1"
        command = [
            sys.executable,
            "-m",
            "ray_jobs",
            "teacher",
            "--replay",
            str(traces),
            "--port",
            str(self.port),
            *options,
        ]
        self._process = subprocess.Popen(command, cwd=small.REPO, stderr=subprocess.DEVNULL)
        deadline = time.monotonic() + 60
        while True:
            try:
                self.stats()
                return
            except OSError:
                assert time.monotonic() < deadline and self._process.poll() is None, "the teacher did not start"
                time.sleep(0.1)

    def stats(self) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/stats", timeout=5) as response:
            stats: dict[str, Any] = json.load(response)
            return stats

    def set_faults(self, **faults: float) -> None:
        data = json.dumps({name.lstrip("_"): share for name, share in faults.items()}).encode()
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self.port}/faults", data, method="PUT"), timeout=5
        )

    def end(self) -> None:
        self._process.kill()
        self._process.wait()


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

    cluster.connect(num_cpus=2)
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
