"""Actors that hang: their process is stopped, no Python runs in it any more, or their event loop is blocked. Ray sees only those that end.

In: what the tally heard of each actor, which says every `BEAT_S` seconds that it goes on. Who has said nothing for `HUNG_S` is ended by
a task on its node; Ray Data starts it again and gives it its rows anew. Not seen: work outside an event loop that takes for ever, in
Python; what can do so (grading) has limits of its own.
"""

import os
import signal
import sys
from collections.abc import Mapping
from typing import NamedTuple

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from pipeline import log
from ray_jobs import worked

BEAT_S = 5.0
HUNG_S = 150.0
"""More than the two minutes for which pyarrow may stop a process that reads from Google's storage: what it asked for is paid."""


class Process(NamedTuple):
    """Where an actor is."""

    node_id: str
    pid: int


def here() -> tuple[str, Process]:
    """Id and process of the actor that this is."""
    context = ray.get_runtime_context()
    return context.get_actor_id() or "", Process(context.get_node_id(), os.getpid())


def end(silent: Mapping[str, Process], stage: str) -> None:
    """End those of these actors, by id, that are alive for all that Ray knows, and say so."""
    for actor_id, process in silent.items():
        known = worked.alive(actor_id)
        if known is None or known["Pid"] != process.pid:
            continue
        name = known["ActorClassName"]
        log.warn("an actor hangs and is ended", actor=name, actor_id=actor_id, **process._asdict())
        what = f"{name} (process {process.pid} on node {process.node_id[:8]}) hangs and is ended"
        print(f"[{stage}] {what}: its rows are done again", file=sys.stderr, flush=True)
        there = NodeAffinitySchedulingStrategy(process.node_id, soft=False)
        _kill.options(scheduling_strategy=there).remote(process.pid)


@ray.remote(num_cpus=0, max_retries=0)
def _kill(pid: int) -> None:
    os.kill(pid, signal.SIGKILL)
