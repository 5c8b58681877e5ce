"""What a stage took and lost, by Ray's own state: who worked, what went away, what did not fit in memory.

In: `begin` when a stage begins. Out: `figures` at its end, for the manifest.
"""

from collections import Counter
from contextlib import suppress
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import internal_api
from ray.core.generated import common_pb2
from ray.util.state import list_actors
from ray.util.state.common import ActorState
from ray.util.state.exception import RayStateApiException

from pipeline import log

SERVES = ("Serve", "Proxy")
"""What the classes of Ray Serve's actors begin with."""
TRAINS = "RayTrainWorker"
TAKEN_AWAY = (common_pb2.NodeDeathInfo.EXPECTED_TERMINATION, common_pb2.NodeDeathInfo.AUTOSCALER_DRAIN_IDLE)
"""Ray's reasons for the end of a node that are no loss."""

UNTOLD = (RayStateApiException, ConnectionError, ValueError)
"""What comes where Ray's state API, or the dashboard behind it, does not answer."""

_losses_earlier: dict[str, int] = {}
"""Of each actor that was there when the stage began; below, the nodes that were lost and the bytes that each had spilled."""
_nodes_lost_earlier: set[str] = set()
_spilled_earlier: dict[str, int] = {}


def begin() -> None:
    """What was there until now is not this stage's."""
    _losses_earlier.update((actor.actor_id, _losses(actor)) for actor in _actors())
    _nodes_lost_earlier.update(_lost_nodes())
    _spilled_earlier.update(_spilled_bytes())


def figures(lost_workers: int = 0) -> dict[str, Any]:
    """As a manifest wants them. `lost_workers` are those of Ray Train, which ends the lost ones too, so that Ray does not tell.

    `ray_actors`: how many actors of each class were started, dead ones included. `lost`: nodes that went away unasked, and actors
    that ended before their work did; what they had under way was done again. Those of a lost node are not among them where Ray Data
    ended them, for others had done their work, before Ray found the node dead. `spilled_bytes`: what went to the disks of the
    nodes that are there now, because their object stores were full.
    """
    found = [actor for actor in _actors() if actor.class_name != "_Tally"]
    new = [actor for actor in found if actor.actor_id not in _losses_earlier]
    lost = {
        "nodes": len(_lost_nodes() - _nodes_lost_earlier),
        "actors": lost_workers
        + sum(_losses(actor) - _losses_earlier.get(actor.actor_id, 0) for actor in found if actor.class_name != TRAINS),
    }
    return {
        "ray_actors": dict(sorted(Counter(actor.class_name for actor in new).items())),
        "lost": {name: count for name, count in lost.items() if count},
        "spilled_bytes": sum(now - _spilled_earlier.get(node, 0) for node, now in _spilled_bytes().items()),
    }


def any_trains() -> bool:
    """Whether a worker of Ray Train is alive in this driver's job, as far as Ray tells."""
    context = ray.get_runtime_context()
    wanted = [("class_name", "=", TRAINS), ("state", "=", "ALIVE"), ("job_id", "=", context.get_job_id())]
    try:
        return bool(list_actors(address=context.gcs_address, filters=wanted, limit=1, raise_on_missing_output=False))
    except UNTOLD:
        return True


def _losses(actor: ActorState) -> int:
    """How often it ended before its work did."""
    return int(actor.num_restarts or 0) + (actor.state == "DEAD" and _died(actor))


def _died(actor: ActorState) -> bool:
    context = (actor.death_cause or {}).get("actor_died_error_context") or {}
    meant = "exit type: INTENDED" in context.get("error_message", "")
    return context.get("reason") in ("WORKER_DIED", "NODE_DIED") and not meant


def _lost_nodes() -> set[str]:
    """Nodes that are dead, but for those that the autoscaler or the user took away."""
    return {node["NodeID"] for node in ray.nodes() if not node["Alive"] and node.get("DeathReason") not in TAKEN_AWAY}


def _actors() -> list[ActorState]:
    """Those of this driver's job, and Ray Serve's, which have one of their own. None where Ray does not tell: no run ends for that."""
    context = ray.get_runtime_context()
    try:  # by address: another cluster of this machine may be the default one
        found = list_actors(address=context.gcs_address, limit=10_000, detail=True, raise_on_missing_output=False)
    except UNTOLD as error:
        log.warn("Ray does not tell its actors", error=str(error))
        return []
    return [each for each in found if each.job_id == context.get_job_id() or each.class_name.startswith(SERVES)]


def _spilled_bytes() -> dict[str, int]:
    """By each node since it began. Without those that do not tell."""
    found: dict[str, int] = {}
    for node in ray.nodes():
        if node["Alive"]:
            with suppress(grpc.RpcError):
                told = internal_api.node_stats(node["NodeManagerAddress"], node["NodeManagerPort"], False)
                found[node["NodeID"]] = int(told.store_stats.spilled_bytes_total)
    return found
