"""A replay teacher in a process of its own, and free ports, for the jobs' tests."""

import contextlib
import json
import socket
import subprocess
import sys
import threading
import time
import urllib.request
from pathlib import Path
from typing import Any

import psutil
import small


def addresses(port: int) -> set[str]:
    """Where something listens at a port."""
    return {
        each.laddr.ip for each in psutil.net_connections("tcp") if each.status == "LISTEN" and each.laddr.port == port
    }


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class SlowLine:
    """A TCP port on loopback that passes on what it is sent to another, so many bytes a second for all connections together."""

    def __init__(self, port: int, bytes_per_s: float) -> None:
        self._target, self._rate, self._lock = port, bytes_per_s, threading.Lock()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.url = f"http://127.0.0.1:{self._listener.getsockname()[1]}"
        threading.Thread(target=self._serve, daemon=True).start()

    def _serve(self) -> None:
        with contextlib.suppress(OSError):
            while True:
                inner, outer = self._listener.accept()[0], socket.create_connection(("127.0.0.1", self._target))
                for pair, slow in (((inner, outer), True), ((outer, inner), False)):
                    threading.Thread(target=self._pass_on, args=(*pair, slow), daemon=True).start()

    def _pass_on(self, source: socket.socket, target: socket.socket, slow: bool) -> None:
        with contextlib.suppress(OSError):
            while chunk := source.recv(1 << 14):
                if slow:
                    with self._lock:
                        time.sleep(len(chunk) / self._rate)
                target.sendall(chunk)
            target.shutdown(socket.SHUT_WR)

    def end(self) -> None:
        self._listener.close()


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
        return self._get("stats")

    def answered(self) -> dict[str, int]:
        """How often each request was."""
        return self._get("answered")

    def _get(self, name: str) -> dict[str, Any]:
        with urllib.request.urlopen(f"http://127.0.0.1:{self.port}/{name}", timeout=5) as response:
            told: dict[str, Any] = json.load(response)
            return told

    def set_faults(self, **faults: float) -> None:
        data = json.dumps({name.lstrip("_"): share for name, share in faults.items()}).encode()
        urllib.request.urlopen(
            urllib.request.Request(f"http://127.0.0.1:{self.port}/faults", data, method="PUT"), timeout=5
        )

    def end(self) -> None:
        self._process.kill()
        self._process.wait()
