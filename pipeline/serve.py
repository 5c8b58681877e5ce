"""Stage 6: what is served and how, as the arguments of Ray Serve LLM.

In: the config. Out: the Serve application's arguments (plain data, fit for YAML), and the smoke question.
Starting it is left to `ray_jobs.serve`; nothing here knows Ray.
"""

from pathlib import Path
from typing import Any

from pipeline.config import Config
from pipeline.records import Problem, problem_id
from pipeline.storage import Place, fetched_path, model_place

APP_NAME = "longthought"
SMOKE_PROBLEM = "What is 2 + 3?"
MODEL_CACHE = Path("~/.cache/longthought/models").expanduser()
"""Where a node keeps the models it fetched from object storage."""


def app_arguments(config: Config, models: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of `ray.serve.llm:build_openai_app` for these models behind one endpoint."""
    return {
        "llm_configs": [_llm_config(config, name) for name in models],
        "ingress_deployment_config": {"ray_actor_options": {"num_cpus": 0.1}, "num_replicas": 1},
    }


def _llm_config(config: Config, name: str) -> dict[str, Any]:
    settings = config.serve
    gpus = settings.replica_gpus
    # The engine's CPUs and GPUs are in the placement group; the server actor before it needs none of its own.
    bundle = {"CPU": settings.replica_cpus / max(1, gpus), **({"GPU": 1} if gpus else {})}
    source, callback = _source(config, name)
    return {
        "model_loading_config": {"model_id": name, "model_source": source},
        "deployment_config": {"num_replicas": settings.replicas, "ray_actor_options": {"num_cpus": 0}},
        "placement_group_config": {"bundles": [bundle] * max(1, gpus)},
        "engine_kwargs": {
            "dtype": settings.dtype,
            "max_model_len": settings.max_model_len,
            "tensor_parallel_size": max(1, gpus),
            "enable_prompt_tokens_details": True,
            **settings.engine,
        },
        "runtime_env": {"env_vars": dict(settings.env)},
        "log_engine_metrics": False,
        **callback,
    }


def _source(config: Config, name: str) -> tuple[str, dict[str, Any]]:
    """A path (or hub name) for vLLM, and what makes each node fetch it first where it lies in object storage."""
    place = Place(model_place(config, name), config.storage.endpoint)
    if place.is_local:
        return place.uri, {}
    fetch = {"uri": place.uri, "endpoint": place.endpoint, "into": str(MODEL_CACHE)}
    callback = {"callback_class": "ray_jobs.serve.FetchModel", "callback_kwargs": fetch}
    return str(fetched_path(place, MODEL_CACHE)), {"callback_config": callback}


def smoke_problem() -> Problem:
    """What every model is asked once."""
    return Problem(problem_id(SMOKE_PROBLEM), SMOKE_PROBLEM, "5", "integer", None, "smoke", "Apache-2.0", None)
