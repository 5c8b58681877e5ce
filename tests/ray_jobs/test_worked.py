"""Who is counted as lost, where Ray itself does not tell."""

import json
import subprocess
import sys

import pytest
import small
from nodes import Nodes

pytestmark = [pytest.mark.ray]

FOUND_SOON = {
    "health_check_initial_delay_ms": 0,
    "health_check_period_ms": 1000,
    "health_check_timeout_ms": 1000,
    "health_check_failure_threshold": 3,
}
"""In three seconds where nobody listens any more, in six at most."""

DRIVER = """
import json, sys, time, ray
from ray._private.state import state
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray_jobs import worked

@ray.remote(num_cpus=0)
class Actor:
    def is_there(self): return True

@ray.remote(num_cpus=0)
class ServeReplica:
    def is_there(self): return True

def started(node, kind=Actor):
    actor = kind.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
    assert ray.get(actor.is_there.remote())
    return actor

def ended(actor):
    ray.kill(actor)
    while worked.alive(actor._actor_id.hex()):
        time.sleep(0.1)

ray.init(address="auto", log_to_driver=False)
stays, goes = sys.argv[1:]
earlier, replica = started(goes), started(goes, ServeReplica)
worked.begin()
ended(earlier)
ended(started(stays))
ended(started(goes))
killed, dropped = started(goes), started(goes)
time.sleep(7)
print("to be lost", flush=True)
sys.stdin.readline()
ids = [actor._actor_id.hex() for actor in (killed, replica, dropped)]
ray.kill(killed)
ray.kill(replica)
del dropped
while "nodes" not in (figures := worked.figures())["lost"]:
    time.sleep(0.2)
reasons = [state.actor_table(each)["DeathCause"].actor_died_error_context.reason for each in ids]
print(json.dumps(figures | {"reasons": reasons}), flush=True)
"""


def test_actors_of_a_lost_node_are_lost_though_they_were_ended_before_the_node_was_found_dead() -> None:
    with Nodes(workers=2, cpus=1, system=FOUND_SOON) as nodes:
        stays, goes = nodes.workers()
        with subprocess.Popen(
            [sys.executable, "-c", DRIVER, stays, goes],
            cwd=small.REPO,
            env=nodes.environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        ) as driver:
            try:
                assert driver.stdout is not None and "to be lost\n" in iter(driver.stdout.readline, "")
                nodes.kill(goes)
                said, _ = driver.communicate("lost\n", timeout=60)
            finally:
                driver.kill()
    (figures,) = (json.loads(line) for line in said.splitlines() if line.startswith("{"))  # between words of Ray's
    assert not {1, 3} & set(figures.pop("reasons")), "Ray takes no end of theirs as a loss"
    assert figures["lost"] == {"nodes": 1, "actors": 3}, (
        "of those of before the one that serves, none that ended long before, or elsewhere"
    )
    assert figures["ray_actors"] == {"Actor": 4}
