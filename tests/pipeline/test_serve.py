"""What is served, as arguments of Ray Serve LLM."""

from typing import Any

from pipeline.config import Config
from pipeline.serve import app_arguments


def arguments(tree: dict[str, Any], **serve: Any) -> dict[str, Any]:
    tree["serve"] |= serve
    return app_arguments(Config.model_validate(tree), ("base",))


def test_without_a_longest_queue_the_engine_gets_all_requests(demo_tree: dict[str, Any]) -> None:
    (model,) = arguments(demo_tree)["llm_configs"]
    assert not {"max_queued_requests", "max_ongoing_requests"} & model["deployment_config"].keys()


def test_a_longest_queue_stands_before_replicas_that_take_so_many(demo_tree: dict[str, Any]) -> None:
    (model,) = arguments(demo_tree, max_queued=1000, requests_per_replica=256)["llm_configs"]
    chosen = model["deployment_config"]
    assert (chosen["max_queued_requests"], chosen["max_ongoing_requests"]) == (1000, 256)


def test_replicas_grow_with_their_requests_and_are_drained(demo_tree: dict[str, Any]) -> None:
    made = arguments(demo_tree, replicas=2, max_replicas=4, drain_s=30)
    (model,) = made["llm_configs"]
    assert model["deployment_config"]["autoscaling_config"] == {
        "min_replicas": 2,
        "max_replicas": 4,
        "target_ongoing_requests": 64,
    }
    assert (
        made["ingress"]["graceful_shutdown_timeout_s"]
        == model["deployment_config"]["graceful_shutdown_timeout_s"]
        == 30
    )


def test_an_answer_may_take_longer_than_ray_serve_would_wait(demo_tree: dict[str, Any]) -> None:
    variables = arguments(demo_tree)["ingress"]["ray_actor_options"]["runtime_env"]["env_vars"]
    assert float(variables["RAY_SERVE_LLM_ROUTER_HTTP_TIMEOUT"]) > 3600
