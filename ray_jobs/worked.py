"""What a stage took and lost, by Ray's own state: who worked, what went away, what did not fit in memory.

In: `begin` when a stage begins. Out: `figures` at its end, for the manifest.
"""

import math
from collections import Counter
from contextlib import suppress
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import internal_api
from ray._private.state import state
from ray._private.worker import global_worker
from ray.core.generated import common_pb2, gcs_pb2

SERVES = ("Serve", "Proxy")
"""What the classes of Ray Serve's actors begin with."""
TRAINS = "RayTrainWorker"
LOSSES = (common_pb2.ActorDiedErrorContext.WORKER_DIED, common_pb2.ActorDiedErrorContext.NODE_DIED)
"""Ray's reasons for the end of an actor that are a loss, but where it says that the exit was intended."""
TAKEN_AWAY = (common_pb2.NodeDeathInfo.EXPECTED_TERMINATION, common_pb2.NodeDeathInfo.AUTOSCALER_DRAIN_IDLE)
"""The same of a node that are none."""
FOUND_MS = 30_000
"""Within which Ray finds a node dead (`ray.util.state.common.NodeState.end_time_ms`)."""

_restarts_earlier: dict[str, int] = {}
"""Of each actor that was there when the stage began; below, those that were dead, the lost nodes, and what each node had spilled."""
_dead_earlier: set[str] = set()
_nodes_lost_earlier: set[str] = set()
_spilled_earlier: dict[str, int] = {}


def begin() -> None:
    """What was there until now is not this stage's."""
    for actor_id, actor in _actors().items():
        _restarts_earlier[actor_id] = actor["NumRestarts"]
        if actor["State"] == "DEAD":
            _dead_earlier.add(actor_id)
    _nodes_lost_earlier.update(_lost_nodes())
    _spilled_earlier.update(_spilled_bytes())


def figures(lost_workers: int = 0) -> dict[str, Any]:
    """As a manifest wants them. `lost_workers` are those of Ray Train, which ends the lost ones too, so that Ray does not tell.

    `ray_actors`: how many actors of each class were started, dead ones included. `lost`: nodes that went away unasked, and actors
    that ended before their work did or with such a node; what they had under way was done again. `spilled_bytes`: what went to the
    disks of the nodes that are there now, because their object stores were full.
    """
    nodes, lost_actors, new = _lost_nodes(), lost_workers, Counter[str]()
    for actor_id, actor in _actors().items():
        name = actor["ActorClassName"]
        if name == "_Tally" or actor_id in _dead_earlier:
            continue
        new[name] += actor_id not in _restarts_earlier
        if name != TRAINS:
            died = actor["State"] == "DEAD" and _died(actor, nodes)
            lost_actors += actor["NumRestarts"] - _restarts_earlier.get(actor_id, 0) + died
    lost = {"nodes": len(nodes.keys() - _nodes_lost_earlier), "actors": lost_actors}
    return {
        "ray_actors": dict(sorted((+new).items())),
        "lost": {name: count for name, count in lost.items() if count},
        "spilled_bytes": sum(now - _spilled_earlier.get(node, 0) for node, now in _spilled_bytes().items()),
    }


def any_trains() -> bool:
    """Whether a worker of Ray Train is alive in this driver's job, as far as Ray tells."""
    return any(each["ActorClassName"] == TRAINS and each["State"] == "ALIVE" for each in _actors().values())


def alive(actor_id: str) -> dict[str, Any] | None:
    """Ray's record of an actor that is alive for all that Ray knows."""
    actor: dict[str, Any] = state.actor_table(actor_id)
    return actor if actor and actor["State"] == "ALIVE" else None


def _died(actor: dict[str, Any], lost_nodes: dict[str, float]) -> bool:
    """Whether a dead one ended before its work did, or with its node.

    Where others had done the work of a lost node's actor before Ray found the node dead, Ray Data has ended it, for all that Ray
    knows: it is one of those that ended in the time that Ray takes to find out.
    """
    cause = actor["DeathCause"].actor_died_error_context
    if "exit type: INTENDED" in cause.error_message:
        return False
    unfound = lost_nodes.get(actor["Address"]["NodeID"], math.inf) - FOUND_MS
    return cause.reason in LOSSES or actor["EndTime"] >= unfound


def _lost_nodes() -> dict[str, float]:
    """When each was found dead (UNIX time, ms), but for those that the autoscaler or the user took away."""
    nodes = global_worker.gcs_client.get_all_node_info()
    return {
        node_id.hex(): node.end_time_ms
        for node_id, node in nodes.items()
        if node.state == gcs_pb2.GcsNodeInfo.DEAD and node.death_info.reason not in TAKEN_AWAY
    }


def _actors() -> dict[str, dict[str, Any]]:
    """By id, Ray's records of those of this driver's job, and of Ray Serve's, which have one of their own.

    Ray's own table: the state API, which asks the same one by the dashboard, leaves out when an actor ended.
    """
    job = ray.get_runtime_context().get_job_id()
    return {
        actor_id: actor
        for actor_id, actor in state.actor_table(None).items()
        if actor["JobID"] == job or actor["ActorClassName"].startswith(SERVES)
    }


def _spilled_bytes() -> dict[str, int]:
    """By each node since it began. Without those that do not tell."""
    found: dict[str, int] = {}
    for node in ray.nodes():
        if node["Alive"]:
            with suppress(grpc.RpcError):
                told = internal_api.node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
                found[node["NodeID"]] = int(told.store_stats.spilled_bytes_total)
    return found
