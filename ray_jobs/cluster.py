"""The Ray cluster as a stage sees it: connecting, and asking for resources.

A driver connects to the cluster of $RAY_ADDRESS (set inside `ray job submit`) or of `ray start` on this
machine, and starts one of its own where there is none.
"""

import logging
import math
import os
import socket
import time
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

import ray
import ray.data
from ray._private.state import available_resources_per_node
from ray._private.utils import read_ray_address
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import log
from pipeline.chat.reach import is_loopback
from pipeline.config import Config, Curate, Distill, Evaluate, Reformat, Verify
from pipeline.errors import ConfigError, ResourceError, first_line
from ray_jobs import stopping, worked

ACCELERATOR = "accelerator_type:"
"""What Ray's resource of a node's kind of GPU begins with; a worker takes a thousandth of it."""
BASIC = ("CPU", "GPU")
"""What is counted; a node's memory is for Ray Data to watch."""
CONNECT_S = 10.0
"""How long a cluster may be silent when it is called."""


def connect(**options: Any) -> None:
    """Connect this process to the cluster; each stage does so at its start. `options` are further ones of `ray.init`."""
    if not ray.is_initialized():
        _connect(**options)
    worked.begin()


def _connect(**options: Any) -> None:
    # 0 keeps accelerators visible to processes that asked for none: what Ray will do by default soon.
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    for noisy in ("ray._private.authentication", "ray.data._internal.progress"):
        logging.getLogger(noisy).setLevel(logging.ERROR)
    address = options.get("address") or os.environ.get("RAY_ADDRESS") or read_ray_address() or ""  # Ray's own order
    try:
        host, _, port = address.rpartition(":")
        if port.isdecimal() and "/" not in host:  # Ray would end this process by itself, after a minute
            socket.create_connection((host, int(port)), timeout=CONNECT_S).close()
        ray.init(logging_level=logging.WARNING, include_dashboard=True, dashboard_host="127.0.0.1", **options)
    except (OSError, ValueError, RuntimeError, ray.exceptions.RayError) as error:
        mending = "set RAY_ADDRESS to host:port of a head (the dashboard's URL is for `ray job submit`), or unset it"
        raise ResourceError(
            f"cannot use the Ray cluster {repr(address) if address else 'of this machine'}: {first_line(error)}: {mending}; what a crash "
            "left here goes with `ray stop`"
        ) from error
    stopping.listen()
    keep_log()
    if os.environ.get("RAY_ADDRESS") == "local":  # the state API would search this machine for it, and may find several
        os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    logging.getLogger("ray.data").setLevel(logging.WARNING)
    # What fails is raised here as well, and shown once: in one line where the user can mend it.
    for echo in (
        "exceptions",
        "_internal.execution.streaming_executor_state",
        "_internal.execution.operators.actor_pool_map_operator",
    ):
        logging.getLogger(f"ray.data.{echo}").setLevel(logging.CRITICAL)
    context = ray.data.DataContext.get_current()
    context.enable_progress_bars = False  # ours counts answers, not blocks
    context.print_on_execution_start = False
    context.raise_original_map_exception = True  # else a user's mistake in a worker comes here as a text
    context.use_datasource_v2 = False  # 2.60: its lister prints a traceback whenever a reader stops early


def keep_log(**ids: str) -> None:
    """Write this process's events beside Ray's own logs of its node, in `longthought.jsonl`."""
    folder = ray._private.worker._global_node.get_logs_dir_path()
    log.to_file(Path(folder) / "longthought.jsonl", **ids)


def require(
    config: Config,
    stage: str,
    *,
    count: int,
    cpus: float,
    gpus: float = 0,
    accelerator: str | None = None,
    tasks: bool = False,
    setting: str,
) -> None:
    """Wait until the cluster has room for `count` workers of so many CPUs and GPUs each, on nodes of such an accelerator.

    With `tasks`, for a task of one CPU beside them: Ray Data reads and writes in such, and would wait for ever
    without a word. Those that want no GPU get nodes with `cluster.cpu_node_labels`, and Ray Data works on such alone from now on. An
    autoscaler is told what is wanted. Raises ResourceError after `cluster.wait_s`, naming `setting`.
    """
    deadline = time.monotonic() + config.cluster.wait_s
    kind = {f"{ACCELERATOR}{accelerator}": 0.001} if accelerator else {}
    workers = [{"CPU": cpus, "GPU": gpus, **kind}] * count + [{"CPU": 1.0, "GPU": 0.0}] * tasks
    labels = {} if gpus else config.cluster.cpu_node_labels
    if labels:
        ray.data.DataContext.get_current().execution_options.label_selector = labels
    try:
        while True:
            nodes: dict[str, Bundle] = {node["NodeID"]: node["Resources"] for node in _living(labels)}
            free = _sums(node for node_id, node in available_resources_per_node().items() if node_id in nodes)
            fits = fit(workers, list(nodes.values()))  # when nothing else runs
            # An earlier stage's actors take a moment to leave.
            if fits and all(free[name] + 1e-6 >= needed for name, needed in _sums(workers).items() if name in BASIC):
                return
            stopping.check()
            if time.monotonic() > deadline:
                have = _sums(nodes.values())
                beside = " and one CPU for tasks" if tasks else ""
                where = f"nodes with cluster.cpu_node_labels {labels} have" if labels else "the cluster has"
                raise ResourceError(
                    f"{stage} needs {count} workers of {cpus:g} CPU and {gpus:g} {accelerator or 'GPU'}{beside}, but {where} "
                    f"{have['CPU']:g} CPU ({free['CPU']:g} free) and {have['GPU']:g} GPU "
                    f"({free['GPU']:g} free{_kinds(have)}): change {setting}, add nodes, or raise cluster.wait_s"
                )
            if not fits:
                _ask_autoscaler(workers, labels)
            time.sleep(0.5)
    finally:
        _ask_autoscaler([], {})  # a floor that stays would keep nodes, also that of a run that was killed here


def require_reach(config: Config, url: str, mend: str) -> None:
    """Refuse an address of the driver's machine alone where actors on others may be to ask there. Nodes that come are to be there already.

    Raises ConfigError.
    """
    if not is_loopback(url):
        return
    driver = ray.get_runtime_context().get_node_id()
    here = {node["NodeManagerAddress"] for node in _living({}) if node["NodeID"] == driver}
    workers = _living(config.cluster.cpu_node_labels)
    asking = {node["NodeManagerAddress"] for node in workers if node["Resources"].get("CPU")}
    if others := sorted(asking - here):
        raise ConfigError(f"{url} is of this machine alone, but actors on {others[0]} may be to ask there: {mend}")


def _living(labels: Mapping[str, str]) -> list[dict[str, Any]]:
    """The nodes that are there and have these labels."""
    return [node for node in ray.nodes() if node["Alive"] and labels.items() <= node["Labels"].items()]


def beside_the_driver() -> dict[str, Any]:
    """Options of an actor that shares the driver's fate: other nodes may go away at any time."""
    return {"scheduling_strategy": NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)}


Bundle = dict[str, float]


def fit(workers: Sequence[Bundle], nodes: Sequence[Bundle]) -> bool:
    """Whether nodes of such resources hold all workers at once: the largest is placed first, and GPUs are spared where they can be."""
    nodes = sorted((dict(node) for node in nodes), key=lambda node: node.get("GPU", 0))
    for worker in sorted(workers, key=lambda bundle: (bundle.get("GPU", 0), bundle.get("CPU", 0)), reverse=True):
        room = (node for node in nodes if all(node.get(name, 0) + 1e-6 >= size for name, size in worker.items()))
        node = next(room, None)
        if node is None:
            return False
        for name, size in worker.items():
            node[name] = node.get(name, 0) - size
    return True


def require_actors(config: Config, stage: Literal["curate", "reformat", "distill", "verify", "evaluate"]) -> None:
    """`require` room for the actors of a stage that maps rows through them."""
    settings: Curate | Reformat | Distill | Verify | Evaluate = getattr(config, stage)
    require(
        config,
        stage,
        count=settings.actors,
        cpus=settings.actor_cpus,
        tasks=True,
        setting=f"{stage}.actors or actor_cpus",
    )


def _kinds(resources: Mapping[str, float]) -> str:
    return "".join(f", {name.removeprefix(ACCELERATOR)}" for name in sorted(resources) if name.startswith(ACCELERATOR))


def _sums(bundles: Iterable[Bundle]) -> Counter[str]:
    sums: Counter[str] = Counter()
    for bundle in bundles:
        sums.update(bundle)
    return sums


def _ask_autoscaler(workers: Sequence[Bundle], labels: Mapping[str, str]) -> None:
    """Ask for nodes with these labels that hold these: a floor for the cluster's size until the next call."""
    from ray.autoscaler.sdk import request_resources

    whole = (
        {name: math.ceil(size) for name, size in worker.items() if size > 0 and not name.startswith(ACCELERATOR)}
        for worker in workers
    )
    bundles = [bundle for bundle in whole if bundle]
    request_resources(bundles=bundles, bundle_label_selectors=[dict(labels)] * len(bundles))
