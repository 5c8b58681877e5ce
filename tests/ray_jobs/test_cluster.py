"""What a stage asks of the cluster, without one."""

from types import SimpleNamespace
from typing import Any

import pytest
import ray
import small

from pipeline.errors import ConfigError
from ray_jobs import cluster


def node(number: int, *, cpus: float, alive: bool = True, **labels: str) -> dict[str, Any]:
    return {
        "NodeID": str(number), "Alive": alive, "NodeManagerAddress": f"10.0.0.{number}", "Resources": {"CPU": cpus},
        "Labels": labels,
    }  # fmt: skip


def test_an_address_of_the_drivers_machine_is_refused_where_others_ask(monkeypatch: pytest.MonkeyPatch) -> None:
    loopback, mend = "http://127.0.0.1:8000/v1", "set serve.host"
    monkeypatch.setattr(ray, "get_runtime_context", lambda: SimpleNamespace(get_node_id=lambda: "1"))
    anywhere, labelled = small.config([]), small.config(["cluster.cpu_node_labels={kind: cpu}"])
    for nodes, config in (
        ([node(1, cpus=4)], anywhere),
        ([node(1, cpus=0), node(2, cpus=0)], anywhere),
        ([node(1, cpus=4), node(2, cpus=4, alive=False)], anywhere),
        ([node(1, cpus=4, kind="cpu"), node(2, cpus=4)], labelled),
    ):
        monkeypatch.setattr(ray, "nodes", lambda nodes=nodes: nodes)
        cluster.require_reach(config, loopback, mend)
    monkeypatch.setattr(ray, "nodes", lambda: [node(1, cpus=0), node(2, cpus=4, kind="cpu")])
    for config in (anywhere, labelled):
        cluster.require_reach(config, "http://10.0.0.1:8000/v1", mend)
        with pytest.raises(
            ConfigError, match=r"8000/v1 is of this machine alone, but actors on 10.0.0.2 .*: set serve.host"
        ):
            cluster.require_reach(config, loopback, mend)
