"""What a stage took and lost, by Ray's own state: who worked, what went away, what did not fit in memory.

In: `begin` when a stage begins. Out: `figures` at its end, for the manifest.
"""

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
_REASONS = common_pb2.ActorDiedErrorContext
LOSSES = (_REASONS.WORKER_DIED, _REASONS.NODE_DIED)
"""Ray's reasons for the end of an actor that are a loss, but where it says that the exit was intended."""
ASKED_FOR = (_REASONS.RAY_KILL, _REASONS.OUT_OF_SCOPE, _REASONS.REF_DELETED)
"""Those of one that its owner ended."""
TAKEN_AWAY = (common_pb2.NodeDeathInfo.EXPECTED_TERMINATION, common_pb2.NodeDeathInfo.AUTOSCALER_DRAIN_IDLE)
"""Ray's reasons for the end of a node that are no loss."""

_restarts_earlier: dict[str, int | None] = {}
"""Of each actor that was there when the stage began, None of a dead one; below, the nodes lost, and what each node had spilled."""
_nodes_lost_earlier: set[str] = set()
_spilled_earlier: dict[str, int] = {}


def begin() -> None:
    """What was there until now is not this stage's."""
    for actor_id, actor in _actors().items():
        _restarts_earlier[actor_id] = None if actor["State"] == "DEAD" else actor["NumRestarts"]
    _nodes_lost_earlier.update(_lost_nodes())
    _spilled_earlier.update(_spilled_bytes())


def figures(lost_workers: int = 0) -> dict[str, Any]:
    """As a manifest wants them. `lost_workers` are those of Ray Train, which ends the lost ones too, so that Ray does not tell.

    `ray_actors`: how many actors of each class were started, dead ones included. `lost`: nodes that went away unasked, as far as
    Ray had found out, and actors that ended before their work did, or shortly before such a node was found dead; what they had under
    way was done again. `spilled_bytes`: what went to the disks of the nodes that are there now, because their object stores were full.
    """
    nodes, lost_actors, new = _lost_nodes(), lost_workers, Counter[str]()
    for actor_id, actor in _actors().items():
        name, is_new = actor["ActorClassName"], actor_id not in _restarts_earlier
        restarts_earlier = _restarts_earlier.get(actor_id, 0)
        if name == "_Tally" or restarts_earlier is None:
            continue
        if is_new:
            new[name] += 1
        if name != TRAINS:
            works_here = is_new or name.startswith(SERVES)
            died = actor["State"] == "DEAD" and (_died(actor) or (works_here and _ended_unfound(actor, nodes)))
            lost_actors += actor["NumRestarts"] - restarts_earlier + died
    lost = {"nodes": len(nodes.keys() - _nodes_lost_earlier), "actors": lost_actors}
    return {
        "ray_actors": dict(sorted(new.items())),
        "lost": {name: count for name, count in lost.items() if count},
        "spilled_bytes": sum(now - _spilled_earlier.get(node, 0) for node, now in _spilled_bytes().items()),
    }


def any_trains() -> bool:
    """Whether a worker of Ray Train is alive in this driver's job, as far as Ray tells."""
    living = state.actor_table(None, global_worker.current_job_id, "ALIVE")
    return any(each["ActorClassName"] == TRAINS for each in living.values())


def alive(actor_id: str) -> dict[str, Any] | None:
    """Ray's record of an actor that is alive for all that Ray knows."""
    actor: dict[str, Any] = state.actor_table(actor_id)
    return actor if actor and actor["State"] == "ALIVE" else None


def _died(actor: dict[str, Any]) -> bool:
    cause = actor["DeathCause"].actor_died_error_context
    return cause.reason in LOSSES and "exit type: INTENDED" not in cause.error_message


def _ended_unfound(actor: dict[str, Any], lost_nodes: dict[str, int]) -> bool:
    """Whether one was ended while its node may have been lost and not found dead yet, which takes Ray a minute at most.

    So Ray Data ends an actor of a lost node where others have done its work, and Ray Serve one that does not answer: for all that
    Ray knows, that was no loss.
    """
    found = lost_nodes.get(actor["Address"]["NodeID"])
    if found is None or actor["DeathCause"].actor_died_error_context.reason not in ASKED_FOR:
        return False
    a_look = ray._config.health_check_timeout_ms() + ray._config.health_check_period_ms()
    return bool(actor["EndTime"] > found - ray._config.health_check_failure_threshold() * a_look)


def _lost_nodes() -> dict[str, int]:
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
