"""A spot machine that is about to be taken away, on which a student is trained: nothing of the training is lost."""

import http.server
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest
import small
from nodes import Driver, Nodes, until
from test_train import prepare, steps_of

sys.path.append(str(Path(__file__).parents[1] / "pipeline" / "train"))

import tiny

from pipeline.config import as_yaml

pytestmark = [pytest.mark.ray, pytest.mark.train, pytest.mark.slow]

SESSION = Path("/tmp/ray/session_latest")


class Machine(http.server.BaseHTTPRequestHandler):
    """What EC2 tells a machine of itself; version 2 of the service, which asks for a token."""

    taken_away = False

    def do_PUT(self) -> None:
        self.say(200, "token") if self.path == "/latest/api/token" else self.say(404, "")

    def do_GET(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token"] == "token"
        known = self.path == "/latest/meta-data/spot/instance-action" and self.taken_away
        self.say(*(200, '{"action": "terminate"}') if known else (404, ""))

    def say(self, status: int, text: str) -> None:
        self.send_response(status)
        self.end_headers()
        self.wfile.write(text.encode())

    def log_message(self, *_: object) -> None: ...


@pytest.fixture
def machine() -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Machine)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


def test_a_training_on_a_machine_that_is_taken_away_goes_on_from_where_it_was(
    tmp_path: Path, machine: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    config = prepare(
        tmp_path / "run",
        tiny.save(tmp_path / "model"),
        epochs=300,
        checkpoint_every=10_000,
        worker_cpus=1,
        max_spike=1e6,
    )
    (tmp_path / "config.yaml").write_text(as_yaml(config))
    with Nodes(workers=1, cpus=3) as nodes:
        driver = Driver(nodes, tmp_path / "said.log", ["train", "--config", str(tmp_path / "config.yaml")])
        driver.until_shown(r"stage=stage1 ([5-9]|\d\d+)/")
        victim = nodes.wait_for_host("RayTrainWorker", driver)
        notice = [str(small.REPO / "configs/spot_notice.sh"), "--address", nodes.environment()["RAY_ADDRESS"]]
        told = {**os.environ, "IMDS": machine}
        subprocess.run([*notice, "--node-id", victim], env=told, check=True)
        assert not (SESSION / "spot-notice").exists(), "nothing is said as yet"
        monkeypatch.setattr(Machine, "taken_away", True)
        subprocess.run([*notice, "--node-id", victim], env=told, check=True)
        assert "terminate" in (SESSION / "spot-notice").read_text()
        kept = tmp_path / "run/5_train/checkpoints"
        until(lambda: list(kept.glob("stage1-*/step_*/longthought.json")) or driver.ended(), driver.log)
        (written,) = [int(path.parent.name.split("_")[1]) for path in kept.glob("stage1-*/step_*/longthought.json")]
        nodes.add()
        nodes.kill(victim)
        until(driver.ended, driver.log)
        assert driver.process.returncode == 0, driver.log()[-4000:]
        events = [json.loads(line) for line in (SESSION / "logs/longthought.jsonl").read_text().splitlines()]
    assert f"stage1: goes on after step {written} of" in driver.log()
    assert any(event["event"] == "a node is to be taken away" for event in events)
    assert len(steps_of(config)["stage1"]) > 10  # each of them once
