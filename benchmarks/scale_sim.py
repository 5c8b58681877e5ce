"""Throughput of `longthought distill` by the number of nodes, against a teacher that is bound by its latency.

    python benchmarks/scale_sim.py [--sizes 1x1,2x1,4x1,8x1,8x4] [--seconds 40] [--latency 2]

The nodes are raylets on this machine, with so many actors each and 32 requests in flight in each; the head has no CPU and does none of the
work. An answer takes 2 s, so that an actor can make 16 requests a second, and twice as many actors twice as many, until something bends:
here the cores, which all nodes and the teacher share. A slower teacher leaves the cores to more actors. Each takes 175 MB and, to start, nine
seconds of a core (imports, more than half of it), so hundreds want a machine of a dozen cores and 48 GB:

    python benchmarks/scale_sim.py --sizes 8x25 --latency 40 --seconds 500

The rate is the slope of a line through the counts of answers, from the moment when all actors are there, and a tenth of the answers, to
nine tenths of them. Exit status 1 where up to eight nodes of one actor each make less than 0.9 of linear, or eight less than 115 requests
a second at 2 s. Recorded in `benchmarks/results/scale.md`.
"""

import argparse
import json
import os
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import linear_regression
from typing import Any

import psutil
from distilling import distill, prepared, record, stats, teacher

IN_FLIGHT = 32
"""Requests under way in each actor."""
ACTOR = "MapWorker(MapBatches(DistillActor))"


@contextmanager
def cluster(nodes: int, actors: int) -> Iterator[None]:
    """A head without CPUs, and nodes for so many actors each; drivers find it in RAY_ADDRESS."""
    from ray.cluster_utils import Cluster

    head: dict[str, Any] = {
        "num_cpus": 0,
        "include_dashboard": True,
        "dashboard_port": 0,
        "dashboard_host": "127.0.0.1",
    }
    head["_system_config"] = {
        "worker_register_timeout_seconds": 900,  # hundreds start at once, on this machine's cores
        "memory_monitor_refresh_ms": 0,  # which takes a machine with swap for a full one
    }
    started = Cluster(initialize_head=True, head_node_args=head)
    try:
        for _ in range(nodes):
            started.add_node(num_cpus=actors + 1, object_store_memory=100 << 20)
        os.environ["RAY_ADDRESS"] = started.address
        yield
    finally:
        os.environ.pop("RAY_ADDRESS", None)
        started.shutdown()


def all_there(actors: int) -> bool:
    """Whether so many actors are past their constructors."""
    from ray.util.state import list_actors
    from ray.util.state.exception import RayStateApiException

    wanted = [("class_name", "=", ACTOR), ("state", "=", "ALIVE")]
    try:
        return len(list_actors(filters=wanted, limit=10_000, raise_on_missing_output=False)) == actors
    except (RayStateApiException, ConnectionError, ValueError):  # the dashboard has no time
        return False


def rate(job: "subprocess.Popen[str]", requests: int, actors: int) -> tuple[float, float]:
    """Requests a second in the middle of a run, and the share of the machine's cores that all this took."""
    seen: list[tuple[float, int]] = []
    busy: list[float] = []
    said: list[str] = []
    threading.Thread(target=lambda: said.extend(job.stderr or []), daemon=True).start()
    while job.poll() is None:
        time.sleep(0.2 if seen else 1)
        answers, now = stats()["answers"], time.monotonic()
        if answers <= 0.9 * requests and (seen or (answers >= 0.1 * requests and all_there(actors))):
            seen.append((now, answers))
            busy.append(psutil.cpu_percent() / 100)
    if job.returncode:
        raise RuntimeError("".join(said)[-3000:])
    if not seen or seen[0][1] == seen[-1][1]:
        raise RuntimeError("nine tenths were answered before all actors were there: it wants more --seconds")
    # Answers come in bursts: a line through all that was seen, for its ends may lie within one.
    return linear_regression(*zip(*seen, strict=True)).slope, sum(busy[1:]) / len(busy[1:])


def main() -> int:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sizes", default="1x1,2x1,4x1,8x1,8x4", help="nodes x actors of each")
    parser.add_argument("--seconds", type=int, default=40, help="of work for each size")
    parser.add_argument("--latency", type=float, default=2.0, help="seconds that an answer takes")
    given = parser.parse_args()
    most_of_one = IN_FLIGHT / given.latency
    os.environ["RAY_AUTH_MODE"] = "disabled"  # one user, on loopback
    print(
        "| nodes | actors | requests | requests/s | of linear | of the latency's bound | cores busy |\n|---|---|---|---|---|---|---|"
    )
    of_one: float | None = None
    broken = []
    for size in given.sizes.split(","):
        nodes, of_each = map(int, size.split("x"))
        actors = nodes * of_each
        requests = int(most_of_one * actors * given.seconds)
        with tempfile.TemporaryDirectory() as temporary:
            folder = Path(temporary)
            record(folder / "traces.jsonl", requests)
            settings = {"actors": actors, "actor_cpus": 1, "keep": 1, "max_samples": 1}
            endpoint = {"max_in_flight": IN_FLIGHT, "budget_tokens": 10**9}
            with teacher(folder / "traces.jsonl", "--latency", str(given.latency)), cluster(nodes, of_each):
                job = distill(prepared(folder, requests, endpoint, settings))
                try:
                    made, busy = rate(job, requests, actors)
                finally:
                    job.kill()
                    job.wait()
            manifest = json.loads((folder / "run/3_distill/manifest.json").read_text())
        assert manifest["rows_out"] == manifest["requests"] == requests
        of_one = of_one or (made if actors == 1 else None)
        linear = f"{made / actors / of_one:.3f}" if of_one else "–"
        print(
            f"| {nodes} | {actors} | {requests:,} | {made:.1f} | {linear} | {made / actors / most_of_one:.3f} | {busy:.0%} |",
            flush=True,
        )
        if of_one and of_each == 1 and nodes <= 8 and made / actors < 0.9 * of_one:
            broken.append(f"{nodes} nodes make {linear} of linear")
        if (nodes, of_each, given.latency) == (8, 1, 2.0) and made < 115:
            broken.append(f"8 nodes make {made:.1f} requests a second")
    print("\n".join(f"does not hold: {each}" for each in broken))
    return bool(broken)


if __name__ == "__main__":
    sys.exit(main())
