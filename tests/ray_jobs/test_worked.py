"""Who is counted as lost, where Ray itself does not tell."""

import json
import subprocess
import sys

import pytest
import small
from nodes import Nodes

pytestmark = [pytest.mark.ray]

FOUND_SOON = {"health_check_initial_delay_ms": 0, "health_check_period_ms": 1000, "health_check_failure_threshold": 3}

DRIVER = """
import json, sys, time, ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy
from ray_jobs import worked

@ray.remote(num_cpus=0)
class Actor:
    def is_there(self): return True

def started(node):
    actor = Actor.options(scheduling_strategy=NodeAffinitySchedulingStrategy(node, soft=False)).remote()
    assert ray.get(actor.is_there.remote())
    return actor

ray.init(address="auto", log_to_driver=False)
stays, goes = sys.argv[1:]
ray.kill(started(goes))
worked.begin()
ended, lost = started(stays), started(goes)
ray.kill(ended)
print("to be lost", flush=True)
sys.stdin.readline()
ray.kill(lost)
while "nodes" not in (figures := worked.figures())["lost"]:
    time.sleep(0.2)
print(json.dumps(figures), flush=True)
"""


def test_an_actor_of_a_lost_node_is_lost_though_it_was_ended_before_the_node_was_found_dead() -> None:
    with Nodes(workers=2, cpus=1, system=FOUND_SOON) as nodes:
        stays, goes = nodes.workers()
        driver = subprocess.Popen(
            [sys.executable, "-c", DRIVER, stays, goes],
            cwd=small.REPO,
            env=nodes.environment(),
            text=True,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
        )
        assert driver.stdout is not None and driver.stdout.readline() == "to be lost\n"
        nodes.kill(goes)
        said, _ = driver.communicate("lost\n", timeout=60)
    (figures,) = (json.loads(line) for line in said.splitlines() if line.startswith("{"))  # between words of Ray's
    assert figures["lost"] == {"nodes": 1, "actors": 1}, (
        "not the one that was ended on a living node, nor that of before"
    )
    assert figures["ray_actors"] == {"Actor": 2}
