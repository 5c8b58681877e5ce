"""The Ray cluster as a stage sees it: connecting, asking for resources, and what is running.

A driver connects to the cluster of $RAY_ADDRESS (set inside `ray job submit`) or of `ray start` on this
machine, and starts one of its own where there is none.
"""

import logging
import os
import re
import time
from collections import Counter
from typing import Any

import ray
import ray.data
from ray.util.state import list_actors

from pipeline.config import Config
from pipeline.errors import ResourceError


def connect(**options: Any) -> None:
    """Connect this process to the cluster, once. `options` are further ones of `ray.init`."""
    if ray.is_initialized():
        return
    # 0 keeps accelerators visible to processes that asked for none: what Ray will do by default soon.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for noisy in ("ray._private.authentication", "ray.data._internal.progress"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    ray.init(logging_level=logging.WARNING, include_dashboard=True, dashboard_host="127.0.0.1", **options)
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # What fails is raised here as well, and shown once: in one line where the user can mend it.
    for echo in ("ray.data.exceptions", "ray.data._internal.execution.streaming_executor_state"):
        logging.getLogger(echo).setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts answers, not blocks
    context.print_on_execution_start = False
    context.use_datasource_v2 = False  # 2.60: its lister prints a traceback whenever a reader stops early


def require(config: Config, stage: str, *, count: int, cpus: float, gpus: float = 0, setting: str) -> None:
    """Wait until the cluster can hold `count` workers of so many CPUs and GPUs each.

    An autoscaler is told what is wanted. Raises ResourceError after `cluster.wait_s`, naming `setting`.
    """
    deadline = time.monotonic() + config.cluster.wait_s
    asked = False
    while (fitting := _fitting(cpus, gpus)) < count:
        if not asked:
            _ask_autoscaler(count, cpus, gpus)
            asked = True
        if time.monotonic() > deadline:
            have = ray.cluster_resources()
            raise ResourceError(
                f"{stage} needs {count} workers of {cpus:g} CPU and {gpus:g} GPU, but the cluster has room for {fitting} "
                f"({have.get('CPU', 0):g} CPU, {have.get('GPU', 0):g} GPU): lower {setting}, add nodes, or raise cluster.wait_s"
            )
        time.sleep(1)


def _fitting(cpus: float, gpus: float) -> int:
    """How many workers of this size the nodes hold when nothing else runs."""
    fitting = 0
    for node in ray.nodes():
        if node["Alive"]:
            have = node["Resources"]
            fits = [have.get(name, 0) / size for name, size in (("CPU", cpus), ("GPU", gpus)) if size > 0]
            fitting += int(min(fits) + 1e-9) if fits else 1_000_000
    return fitting


def _ask_autoscaler(count: int, cpus: float, gpus: float) -> None:
    from ray.autoscaler.sdk import request_resources

    # Whole CPUs only: the request is a floor for the cluster's size, dropped when the job ends.
    request_resources(bundles=[{"CPU": max(1, round(cpus)), **({"GPU": round(gpus)} if gpus else {})}] * count)


def actors() -> dict[str, int]:
    """How many actors of each class Ray has started in this job, dead ones included, by Ray's own state."""
    context = ray.get_runtime_context()
    # By address: another cluster of this machine may be the default one.
    found = list_actors(
        address=context.gcs_address,
        filters=[("job_id", "=", context.get_job_id())],
        limit=10_000,
        raise_on_missing_output=False,
    )
    return dict(sorted(Counter(re.sub(r"^_", "", actor.class_name) for actor in found).items()))
