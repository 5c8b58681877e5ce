"""What a stage took and lost, by Ray's own state: who worked, what went away, what did not fit in memory.

In: `begin` when a stage begins. Out: `figures` at its end, for the manifest.
"""

from collections import Counter
from typing import Any

import grpc  # type: ignore[import-untyped]
import ray
from ray._private import internal_api, state
from ray.core.generated import common_pb2
from ray.util.state import list_actors
from ray.util.state.common import ActorState
from ray.util.state.exception import RayStateApiException

from pipeline import log

SERVES = ("Serve", "Proxy")
"""What the classes of Ray Serve's actors begin with."""
TAKEN_AWAY = (common_pb2.NodeDeathInfo.EXPECTED_TERMINATION, common_pb2.NodeDeathInfo.AUTOSCALER_DRAIN_IDLE)
"""Ray's reasons for the end of a node that are no loss."""
ANSWER_S = 10.0
"""How long Ray may take to say what it spilled."""

_actors_earlier: set[str] = set()
_lost_earlier: set[str] = set()
_spilled_earlier = 0


def begin() -> None:
    """What was there until now is not this stage's."""
    global _spilled_earlier
    _actors_earlier.update(actor.actor_id for actor in _actors())
    _lost_earlier.update(_lost_nodes())
    _spilled_earlier = _spilled_bytes()


def figures() -> dict[str, Any]:
    """As a manifest wants them.

    `ray_actors`: how many actors of each class were started, dead ones included. `lost`: nodes that went away unasked, and actors
    that ended before their work did; what they had under way was done again. `spilled_bytes`: what went to the nodes' disks because
    their object stores were full.
    """
    found = [actor for actor in _actors() if actor.actor_id not in _actors_earlier and actor.class_name != "_Tally"]
    again = sum(int(actor.num_restarts or 0) for actor in found)
    lost = {
        "nodes": len(_lost_nodes() - _lost_earlier),
        "actors": again + sum(_died(actor) for actor in found if actor.state == "DEAD"),
    }
    return {
        "ray_actors": dict(sorted(Counter(actor.class_name for actor in found).items())),
        "lost": {name: count for name, count in lost.items() if count},
        "spilled_bytes": max(0, _spilled_bytes() - _spilled_earlier),  # less where a node took its count away
    }


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
    except RayStateApiException as error:
        log.warn("Ray does not tell its actors", error=str(error))
        return []
    return [each for each in found if each.job_id == context.get_job_id() or each.class_name.startswith(SERVES)]


def _spilled_bytes() -> int:
    """By all nodes since they began. None where Ray does not tell."""
    try:
        told = internal_api.get_memory_info_reply(state.state, timeout_seconds=ANSWER_S)
        return int(told.store_stats.spilled_bytes_total)
    except grpc.RpcError as error:
        log.warn("Ray does not tell what it spilled", error=str(error))
        return 0
