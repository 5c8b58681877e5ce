"""A key from the environment, a run with failures: it stands in no file, log, manifest, message or dashboard answer."""

import json
import os
import re
import secrets
import shutil
import subprocess
import tempfile
import time
import urllib.request
from pathlib import Path
from typing import Any

import pytest
import small
from local_servers import Teacher

KEY = "sk-planted-4f9a1c7e2b"
TOKEN = secrets.token_hex(32)
PAGES = (
    "api/version", "api/jobs/", "nodes?view=summary", "nodes/{node}", "logical/actors", "api/cluster_status",
    "api/v0/actors?detail=1", "api/v0/tasks?detail=1", "api/v0/workers?detail=1", "api/v0/runtime_envs?detail=1",
    "api/v0/objects?detail=1", "api/v0/placement_groups?detail=1", "api/v0/logs?glob=*&node_id={node}",
)  # fmt: skip

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.timeout(400)]


def dashboard(session: Path) -> str:
    """The address of the dashboard of a Ray session, once it is up."""
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline:
        for log in session.glob("ray/session_latest/logs/dashboard.log"):
            found = re.search(r"http address: (127\.0\.0\.1:\d+)", log.read_text(errors="replace"))
            if found:
                return f"http://{found[1]}"
        time.sleep(0.5)
    raise AssertionError("no dashboard")


def page(url: str) -> str:
    request = urllib.request.Request(url, headers={"Authorization": f"Bearer {TOKEN}"})
    with urllib.request.urlopen(request, timeout=20) as answer:
        return str(answer.read().decode("utf-8", "replace"))


def holding(folder: Path) -> list[str]:
    """The files below a folder that hold the key."""
    return [str(path) for path in folder.rglob("*") if path.is_file() and KEY.encode() in path.read_bytes()]


def test_a_planted_key_is_nowhere_to_be_found(sums: Path, start_teacher: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PLANTED_KEY", KEY)
    faults = [flag for fault in ("429=0.1", "500=0.2", "drop=0.1", "malformed=0.1") for flag in ("--fault", fault)]
    teacher: Teacher = start_teacher(
        sums / "traces.jsonl", "--require-key-env", "PLANTED_KEY", "--latency", "1", "--retry-after", "0.1", *faults
    )
    session = Path(tempfile.mkdtemp(prefix="lt-", dir="/tmp"))  # Ray's sockets want a short path
    settings = [
        *small.overrides(sums, str(sums / "run"), teacher.url), "teacher.api_key_env=PLANTED_KEY",
        "teacher.max_in_flight=2", "distill.actors=1", "teacher.max_attempts=3",
    ]  # fmt: skip
    environment = {
        **os.environ,
        "RAY_TMPDIR": str(session),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN": TOKEN,
        "PYTHONPATH": str(small.REPO),
    }
    environment.pop("RAY_ADDRESS", None)
    said = sums / "said.txt"
    try:
        with said.open("w") as stream:
            to = {"stdout": stream, "stderr": subprocess.STDOUT, "cwd": small.REPO, "env": environment}
            subprocess.run(small.command("curate", settings), check=True, **to)
            driver = subprocess.Popen(small.command("distill", settings), **to)
            deadline = time.monotonic() + 150
            while teacher.stats()["answers"] < 10:
                assert time.monotonic() < deadline and driver.poll() is None, said.read_text()[-2000:]
                time.sleep(0.2)
            url = dashboard(session)
            nodes = json.loads(page(f"{url}/nodes?view=summary"))
            node = nodes["data"]["summary"][0]["raylet"]["nodeId"]
            pages = {name: page(f"{url}/{name.format(node=node)}") for name in PAGES}
            assert "DistillActor" in pages["logical/actors"]
            assert not [name for name, text in pages.items() if KEY in text]
            assert driver.wait(timeout=250) == 0, said.read_text()[-2000:]
            # a key that is refused (by a server that repeats it: tests/pipeline/test_chat_batches.py)
            wrong = [*settings, "teacher.api_key_env=WRONG_KEY", f"storage.root={sums / 'refused'}"]
            subprocess.run(small.command("curate", wrong), check=True, **to)
            to["env"] = {**environment, "WRONG_KEY": KEY + "x"}
            assert subprocess.run(small.command("distill", wrong), **to).returncode == 2
        assert sum(teacher.stats()["by_fault"].values()) > 3
        assert "check the key in the environment variable WRONG_KEY" in said.read_text()
        assert holding(sums) == [] and holding(session) == []
    finally:
        shutil.rmtree(session, ignore_errors=True)
