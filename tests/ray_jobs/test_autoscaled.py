"""Ray's own autoscaler with nodes that are processes: workers come for a stage, do all of its work, and go when they are idle."""

import contextlib
import json
import os
import signal
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
import small
from local_servers import free_port
from nodes import BIN, until
from ray.util.state import list_actors, list_nodes, list_tasks

from pipeline.stage import StageFolder, root_of

pytestmark = [pytest.mark.ray, pytest.mark.timeout(600)]

HEAD = "f" * 51 + "00000"
WORKERS = 2
LABELS = {"longthought": "cpu"}
HOLDS_A_GPU = """
import ray, time
ray.init()
holder = ray.remote(num_cpus=0, num_gpus=1)(type("Holder", (), {"here": lambda self: None})).remote()
ray.get(holder.here.remote())
time.sleep(600)
"""
NO_WORK = {
    "_Tally",
    "_Dispatcher",
    "ActorLocationTracker",
    "_AutoscalingCoordinatorActor",
    "_StatsActor",
    "_UsageCollectionActor",
}
"""What may be on a head: the driver's two, and Ray Data's own, which take no CPU."""


# Version 2 is what `ray up` and kuberay.yaml start. It would read a file of defaults for `fake_multinode` that Ray's wheel lacks, and for
# a provider by its class none.
FAKE = "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider"
VERSIONS = [
    pytest.param(({"type": "external", "module": FAKE}, "1"), id="version 2"),
    pytest.param(({"type": "fake_multinode"}, "0"), id="version 1", marks=pytest.mark.slow),
]


@pytest.fixture(params=VERSIONS)
def autoscaled(tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[tuple[dict[str, str], str]]:
    """The environment of drivers on a head without CPUs, which may have two workers, and one with a GPU; and the dashboard's URL."""
    provider, second = request.param
    port, dashboard = free_port(), free_port()
    kinds = {
        "ray.head.default": {"resources": {"CPU": 0}, "node_config": {}, "max_workers": 0},
        "cpu": {"resources": {"CPU": 2, "object_store_memory": 200 << 20}, "node_config": {}, "min_workers": 0, "max_workers": WORKERS, "labels": LABELS},
        "gpu": {"resources": {"CPU": 8, "GPU": 1, "object_store_memory": 200 << 20}, "node_config": {}, "min_workers": 0, "max_workers": 1},
    }  # fmt: skip
    config = {
        "cluster_name": "fake", "max_workers": WORKERS + 1, "upscaling_speed": 1.0, "idle_timeout_minutes": 0.1,
        "provider": {**provider, "gcs_address": f"127.0.0.1:{port}", "head_node_id": HEAD, "use_node_id_as_ip": True, "disable_node_updaters": True, "launch_multiple": True},
        "auth": {}, "docker": {}, "file_mounts": {}, "cluster_synced_files": [], "initialization_commands": [], "setup_commands": [],
        "head_setup_commands": [], "worker_setup_commands": [], "head_start_ray_commands": [], "worker_start_ray_commands": [],
        "head_node_type": "ray.head.default", "available_node_types": kinds, "rsync_exclude": [], "rsync_filter": [],
    }  # fmt: skip
    (tmp_path / "autoscaling.json").write_text(json.dumps(config))
    mark = f"/tmp/ray-{port}"
    environment = {
        **os.environ, "RAY_TMPDIR": mark, "RAY_AUTH_MODE": "disabled", "RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_enable_autoscaler_v2": second, "RAY_CLOUD_INSTANCE_ID": HEAD, "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD,
    }  # fmt: skip
    command = [
        str(BIN / "ray"), "start", "--head", "--num-cpus=0", "--node-ip-address=127.0.0.1", f"--port={port}", "--dashboard-host=127.0.0.1",
        f"--dashboard-port={dashboard}", f"--autoscaling-config={tmp_path / 'autoscaling.json'}",
    ]  # fmt: skip
    subprocess.run(command, env=environment, check=True, capture_output=True)
    try:
        driver = {
            **os.environ,
            "RAY_ADDRESS": f"127.0.0.1:{port}",
            "RAY_AUTH_MODE": "disabled",
            "PATH": f"{BIN}:{os.environ['PATH']}",
        }
        yield driver, f"http://127.0.0.1:{dashboard}"
    finally:
        for process in psutil.process_iter():  # those that were started here, and no other cluster's
            with contextlib.suppress(psutil.Error):
                if process.environ().get("RAY_TMPDIR") == mark:
                    process.send_signal(signal.SIGKILL)


def alive(dashboard: str) -> set[str]:
    return {node.node_id for node in list_nodes(dashboard) if node.state == "ALIVE"}


def tasks_by_node(dashboard: str) -> dict[str, set[str]]:
    """The names of those that ran, actors' methods aside."""
    ran: dict[str, set[str]] = defaultdict(set)
    for task in list_tasks(dashboard, limit=10_000, detail=True, raise_on_missing_output=False):
        if task.type == "NORMAL_TASK" and task.node_id:
            ran[task.node_id].add(task.name)
    return ran


def settings_of(sums: Path, tmp_path: Path, start_teacher: Any) -> list[str]:
    teacher = start_teacher(sums / "traces.jsonl", "--latency", "0.5")
    root = str(tmp_path / "run")
    return [*small.overrides(sums, root, teacher.url), "cluster.wait_s=120", "teacher.max_in_flight=8"]


def test_workers_come_for_a_stage_do_all_its_work_and_go(
    tmp_path: Path, sums: Path, start_teacher: Any, autoscaled: tuple[dict[str, str], str]
) -> None:
    environment, dashboard = autoscaled
    assert alive(dashboard) == {HEAD}
    settings = settings_of(sums, tmp_path, start_teacher)

    def all_go() -> None:
        deadline = time.monotonic() + 90
        until(lambda: alive(dashboard) == {HEAD} or time.monotonic() > deadline, lambda: str(alive(dashboard)))
        assert alive(dashboard) == {HEAD}, "what is idle goes"

    for stage in ("curate", "distill"):
        all_go()
        small.run(stage, settings, environment)
    made = StageFolder(root_of(small.config(settings)), "distill").require()
    assert made.rows_out == len(small.SUMS)

    actors = list_actors(dashboard, limit=10_000)
    asked = {actor.node_id for actor in actors if "DistillActor" in actor.class_name}
    assert asked and HEAD not in asked
    assert {actor.class_name for actor in actors if actor.node_id == HEAD} <= NO_WORK
    ran = tasks_by_node(dashboard)
    assert ran and HEAD not in ran, ran
    all_go()


@pytest.mark.slow
@pytest.mark.parametrize("autoscaled", VERSIONS[:1], indirect=True)  # version 1 knows no labels
def test_work_without_gpus_spares_a_node_with_some_that_is_up(
    tmp_path: Path, sums: Path, start_teacher: Any, autoscaled: tuple[dict[str, str], str]
) -> None:
    environment, dashboard = autoscaled
    settings = [*settings_of(sums, tmp_path, start_teacher), f"cluster.cpu_node_labels={json.dumps(LABELS)}"]
    with subprocess.Popen([sys.executable, "-c", HOLDS_A_GPU], env=environment) as holder:
        try:
            until(lambda: len(alive(dashboard)) == 2 or holder.poll() is not None, lambda: str(alive(dashboard)))
            for stage in ("curate", "distill"):
                small.run(stage, settings, environment)
        finally:
            holder.kill()
    with_gpus = {node.node_id for node in list_nodes(dashboard) if node.resources_total.get("GPU")}
    actors = {name: set() for name in ("ExamineActor", "DistillActor", "Holder")}
    for actor in list_actors(dashboard, limit=10_000):
        for name in actors:
            if name in actor.class_name:
                actors[name].add(actor.node_id)
    assert actors["Holder"] == with_gpus and len(with_gpus) == 1
    assert all(actors[name] and not actors[name] & with_gpus for name in ("ExamineActor", "DistillActor")), actors
    ran = tasks_by_node(dashboard)
    there = set().union(*(ran.pop(node_id, set()) for node_id in with_gpus))
    assert ran and {name.partition("(")[0] for name in there} <= {"SortShuffleReduce"}, (
        there
    )  # Ray Data 2.60 forgets those of a sort
