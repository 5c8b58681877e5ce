"""A run's own replay teachers: started for the run's duration where the config names recorded traces.

An endpoint that already answers is used as it is, so that a teacher may outlive the run.
"""

import subprocess
import sys
import time
import urllib.error
import urllib.parse
import urllib.request
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from tempfile import TemporaryFile

from pipeline.chat.reach import is_loopback
from pipeline.config import Config, Endpoint
from pipeline.errors import ConfigError, DataError
from pipeline.stage import StageFolder, root_of

START_S = 60.0

DIRECTLY = urllib.request.build_opener(urllib.request.ProxyHandler({}))
"""Opens URLs of our own machines, which a proxy would not find."""


@contextmanager
def replayed(config: Config) -> Iterator[None]:
    """Serve the recorded traces that endpoints of the config name, until the block ends.

    Only where the stage that asks has something left to ask.
    """
    judge = config.verify.judge
    endpoints = (
        ("reformat", "rewriter", config.rewriter),
        ("distill", "teacher", config.teacher),
        ("verify", "verify.judge.endpoint", judge.endpoint if judge else None),
        ("evaluate", "evaluate.endpoint", config.evaluate.endpoint),
    )
    with ExitStack() as stack:
        for stage, name, endpoint in endpoints:
            finished = StageFolder(root_of(config), stage).manifest() is not None
            if endpoint and endpoint.replay and not finished and not _answers(endpoint):
                stack.enter_context(_teacher(name, endpoint))
        yield


@contextmanager
def _teacher(name: str, endpoint: Endpoint) -> Iterator[None]:
    assert endpoint.replay is not None
    url = urllib.parse.urlsplit(endpoint.base_url)
    host, port = url.hostname or "", url.port
    if not is_loopback(endpoint.base_url) or port is None or url.path.rstrip("/") != "/v1":
        raise ConfigError(
            f"{name}.base_url is {endpoint.base_url!r}: with {name}.replay it must be a loopback address such as "
            "http://127.0.0.1:8901/v1"
        )
    command = [
        sys.executable,
        "-m",
        "ray_jobs",
        "teacher",
        "--replay",
        endpoint.replay,
        "--host",
        host,
        "--port",
        str(port),
    ]
    # It stops when our end of the pipe closes, so that it ends with this process even on kill -9.
    with (
        TemporaryFile("w+") as log,
        subprocess.Popen([*command, "--until-eof"], stdin=subprocess.PIPE, stderr=log) as process,
    ):
        try:
            deadline = time.monotonic() + START_S
            while not _answers(endpoint):
                if process.poll() is not None or time.monotonic() > deadline:
                    log.seek(0)
                    said = log.read().strip().splitlines() or ["no answer"]
                    raise DataError(f"{name}.replay: {said[-1].removeprefix('error: ')}")
                time.sleep(0.1)
            yield
        finally:
            process.kill()


def _answers(endpoint: Endpoint) -> bool:
    try:
        with DIRECTLY.open(f"{endpoint.base_url.rstrip('/')}/models", timeout=5):
            return True
    except urllib.error.HTTPError:
        return True
    except OSError:
        return False
