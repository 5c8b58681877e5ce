"""What a run does that is asked to end, or must."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import small

from pipeline.storage import Place, hold

WORK = """
import sys, time
from pipeline.storage import Place, hold
from ray_jobs import cli, stopping

def work(parsed):
    stopping.listen()
    place = Place(*sys.argv[1:3])
    with hold.held(place, stopping.root_lost), stopping.ends_by(lambda: None):
        print("works", flush=True)
        time.sleep({seconds})

hold.RENEW_S = 0.2
parser = cli._parser()
cli._parser = lambda: type("", (), {{"parse_args": lambda self, _: type("", (), {{"command": staticmethod(work)}})()}})()
cli.main([])
"""
"""A command that lets what is under way come to its end, in this many seconds."""


def start(root: Place, seconds: float) -> "subprocess.Popen[str]":
    command = [sys.executable, "-c", WORK.format(seconds=seconds), root.uri, root.endpoint or ""]
    pipe = subprocess.PIPE
    process = subprocess.Popen(command, cwd=small.REPO, stdout=pipe, stderr=pipe, text=True)
    assert process.stdout is not None and process.stdout.readline() == "works\n"
    return process


def test_a_run_that_lost_its_hold_waits_for_nothing_and_says_so(s3: str, tmp_path: Path) -> None:
    root = Place(f"s3://bucket/{tmp_path.name}", s3)
    process = start(root, 60)
    file = hold._File(root)
    found = file.read()
    assert found is not None
    while file.write({"holder": "another"}, replacing=found.version) is None:  # it was renewed in between
        found = file.read()
        assert found is not None
    started = time.monotonic()
    said = process.communicate()[1]
    assert time.monotonic() - started < 20
    assert process.returncode == 2 and "was taken over by another run" in said, said


def test_a_signal_lets_what_is_under_way_come_to_its_end(s3: str, tmp_path: Path) -> None:
    process = start(Place(f"s3://bucket/{tmp_path.name}", s3), 3)
    started = time.monotonic()
    process.send_signal(signal.SIGTERM)
    said = process.communicate()[1]
    assert time.monotonic() - started > 1 and process.returncode == 130
    assert said.splitlines()[-1].startswith("interrupted:")


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_second_signal_ends_at_once(s3: str, tmp_path: Path, number: signal.Signals) -> None:
    process = start(Place(f"s3://bucket/{tmp_path.name}", s3), 60)
    process.send_signal(number)
    time.sleep(1)
    process.send_signal(number)
    started = time.monotonic()
    said = process.communicate()[1]
    assert time.monotonic() - started < 20 and process.returncode == 130, said
