"""A replay teacher in a process of its own, and free ports, for the jobs' tests."""

import json
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path
from typing import Any

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
