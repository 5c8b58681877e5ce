"""A Ray cluster of several nodes on loopback, whose raylets can be killed; and jobs that are submitted to it."""

import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any, Protocol, Self

import small
from local_servers import free_port

BIN = Path(sys.executable).parent
WAIT_S = 1500.0


class Nodes:
    """A head with no CPU, and workers. A context manager. `store` in bytes; `system` are settings of Ray's inside."""

    def __init__(
        self, workers: int, cpus: float, *, store: int = 200 << 20, system: dict[str, Any] | None = None
    ) -> None:
        self._workers, self._cpus, self._store, self._system = workers, cpus, store, system
        self._environment = {"RAY_AUTH_MODE": "disabled", "PATH": f"{BIN}:{os.environ['PATH']}"}
        self._nodes: dict[str, Any] = {}

    def __enter__(self) -> Self:
        from ray.cluster_utils import Cluster

        self._before = {name: os.environ.get(name) for name in self._environment}
        os.environ.update(self._environment)
        head: dict[str, Any] = {"_system_config": self._system} if self._system else {}
        head |= {"num_cpus": 0, "include_dashboard": True, "dashboard_port": free_port(), "dashboard_host": "127.0.0.1"}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self.dashboard = f"http://{self._cluster.webui_url}"
        for _ in range(self._workers):
            self.add()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._cluster.shutdown()
        for name, value in self._before.items():
            if value is None:
                os.environ.pop(name)
            else:
                os.environ[name] = value

    def add(self) -> None:
        """One more worker, as an autoscaler would."""
        node = self._cluster.add_node(num_cpus=self._cpus, object_store_memory=self._store)
        self._nodes[node.node_id] = node

    def workers(self) -> list[str]:
        """Their node ids."""
        return list(self._nodes)

    def kill(self, node_id: str) -> None:
        """`kill -9` of a node's raylet: what runs there goes with it."""
        _killed(self._nodes.pop(node_id).all_processes["raylet"][0].process)

    def kill_head(self) -> None:
        """`kill -9` of all that is the head, as where its machine is lost."""
        for started in self._cluster.head_node.all_processes.values():
            for each in started:
                _killed(each.process)

    def wait_for_host(self, actor: str, driver: "Driver") -> str:
        """The worker node on which an actor of such a class is alive."""
        from ray.util.state import list_actors

        hosts: list[str] = []

        def found() -> bool:
            actors = list_actors(self.dashboard, filters=[("state", "=", "ALIVE")], limit=10_000)
            hosts.extend(each.node_id for each in actors if actor in each.class_name and each.node_id in self._nodes)
            return bool(hosts) or driver.ended()

        until(found, driver.log)
        assert hosts, driver.log()[-3000:]
        return hosts[0]

    def environment(self) -> dict[str, str]:
        """That of a driver on the head."""
        return {**os.environ, "RAY_ADDRESS": self._cluster.address}

    def ray(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        """A command of Ray's."""
        return subprocess.run(
            [str(BIN / "ray"), *arguments], cwd=small.REPO, env=self.environment(), text=True, capture_output=True
        )


class Work(Protocol):
    """Something under way, with a log."""

    def log(self) -> str: ...

    def ended(self) -> bool: ...

    def until_shown(self, pattern: str) -> None:
        """Until the log shows this, or it has ended."""
        until(lambda: re.search(pattern, self.log()) or self.ended(), self.log)


class Driver(Work):
    """`python -m ray_jobs` as a process on the head."""

    def __init__(self, nodes: Nodes, log: Path, arguments: list[str]) -> None:
        self._log = log
        command = [sys.executable, "-m", "ray_jobs", *arguments]
        with log.open("w") as stream:
            self.process = subprocess.Popen(
                command, cwd=small.REPO, env=nodes.environment(), stdout=stream, stderr=subprocess.STDOUT
            )

    def log(self) -> str:
        return self._log.read_text(errors="replace")

    def ended(self) -> bool:
        return self.process.poll() is not None


class Job(Work):
    """A job of `python -m ray_jobs` that was submitted."""

    def __init__(self, nodes: Nodes, name: str, arguments: list[str]) -> None:
        from ray.job_submission import JobSubmissionClient

        self._nodes, self.name = nodes, name
        self._client = JobSubmissionClient(nodes.dashboard)
        options = ["--address", nodes.dashboard, "--submission-id", name, "--no-wait", "--working-dir", "."]
        patience = '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "120"}, "excludes": ["/.venv", "/runs", "/.git"]}'
        done = nodes.ray(
            "job", "submit", *options, "--runtime-env-json", patience, "--", "python", "-m", "ray_jobs", *arguments
        )
        assert done.returncode == 0, done.stdout + done.stderr

    def log(self) -> str:
        return str(self._client.get_job_logs(self.name))

    def status(self) -> str:
        return str(self._client.get_job_status(self.name))

    def stop(self) -> None:
        """`ray job stop`, until it has ended."""
        done = self._nodes.ray("job", "stop", "--address", self._nodes.dashboard, self.name)
        assert done.returncode == 0, done.stdout + done.stderr
        until(self.ended, self.log)
        assert self.status() == "STOPPED", self.log()[-4000:]

    def ended(self) -> bool:
        return self.status() in ("SUCCEEDED", "FAILED", "STOPPED")


def _killed(process: "subprocess.Popen[bytes]") -> None:
    """Waited for, too: workers take a raylet that is killed but not waited for as alive, and go on."""
    process.kill()
    process.wait()


def until(reached: Callable[[], object], said: Callable[[], str]) -> None:
    """Wait for something, and tell what was said where it does not come."""
    deadline = time.monotonic() + WAIT_S
    while not reached():
        assert time.monotonic() < deadline, said()[-4000:]
        time.sleep(0.3)
