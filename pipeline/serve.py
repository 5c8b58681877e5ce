"""Stage 6: what is served and how, as the arguments of Ray Serve LLM.

In: the config. Out: the Serve application's arguments (plain data, fit for YAML), and the smoke question.
Starting it is left to `ray_jobs.serve`; nothing here knows Ray.
"""

from pathlib import Path
from typing import Any

from pipeline import precision
from pipeline.config import Config, Serve
from pipeline.records import Problem, digest, problem_id
from pipeline.stage import StageFolder, model_place, root_of
from pipeline.storage import Place, fetched_path

SMOKE_PROBLEM = "What is 2 + 3?"
LONGEST_ANSWER_S = 24 * 3600
"""How long an answer may take: its client decides how long it waits. Ray Serve LLM's own limit is ten minutes."""
MODEL_CACHE = Path("~/.cache/longthought/models").expanduser()
"""Where a node keeps the models it fetched from object storage."""


def app_prefix(config: Config) -> str:
    """How the names of the Serve applications of this run begin."""
    return f"longthought-{digest(root_of(config).uri)[:8]}-"


def app_name(config: Config, models: tuple[str, ...]) -> str:
    """The Serve application's name, which tells the run, the settings and the training: another one is another app."""
    trained = StageFolder(root_of(config), "train").require().artifact
    return app_prefix(config) + digest(app_arguments(config, models), trained)[:8]


def app_arguments(config: Config, models: tuple[str, ...]) -> dict[str, Any]:
    """The arguments of `ray_jobs.ingress:build` for these models behind one endpoint."""
    return {
        "llm_configs": [_llm_config(config, name) for name in models],
        "ingress": {
            "ray_actor_options": {
                "num_cpus": 0.1,
                "runtime_env": {"env_vars": {"RAY_SERVE_LLM_ROUTER_HTTP_TIMEOUT": str(LONGEST_ANSWER_S)}},
            },
            "num_replicas": 1,
            "autoscaling_config": None,
            "graceful_shutdown_timeout_s": config.serve.drain_s,
        },
        "key_variable": config.serve.api_key_env,
    }


def _llm_config(config: Config, name: str) -> dict[str, Any]:
    settings = config.serve
    gpus = settings.replica_gpus
    # The engine's CPUs and GPUs are in the placement group; the server actor before it needs none of its own.
    bundle = {"CPU": settings.replica_cpus / max(1, gpus), **({"GPU": 1} if gpus else {})}
    place = Place(model_place(config, name), config.storage.endpoint)
    return {
        "model_loading_config": {"model_id": name, "model_source": _source(place)},
        "deployment_config": {**_replicas(settings), "ray_actor_options": {"num_cpus": 0}},
        "placement_group_config": {"bundles": [bundle] * max(1, gpus)},
        "engine_kwargs": {
            "dtype": precision.computed(settings.dtype, gpus),
            "max_model_len": settings.max_model_len,
            "tensor_parallel_size": max(1, gpus),
            "load_format": "safetensors",  # no pickles
            "use_tqdm_on_load": False,  # its bar would come in the middle of ours
            "enable_prompt_tokens_details": True,
            **settings.engine,
        },
        "runtime_env": {"env_vars": {"VLLM_LOGGING_LEVEL": "ERROR", **settings.env}},
        "log_engine_metrics": False,
        "callback_config": {
            "callback_class": "ray_jobs.model_on_node.ModelOnNode",
            "callback_kwargs": {"uri": place.uri, "endpoint": place.endpoint, "into": str(MODEL_CACHE)},
        },
    }


def _replicas(settings: Serve) -> dict[str, Any]:
    """How many there are, what they take on, how they end."""
    options: dict[str, Any] = {"graceful_shutdown_timeout_s": settings.drain_s}
    if settings.max_queued is not None:  # only what no replica takes is queued
        options |= {"max_queued_requests": settings.max_queued, "max_ongoing_requests": settings.requests_per_replica}
    if settings.max_replicas is None:
        return {**options, "num_replicas": settings.replicas}
    scaling = {
        "min_replicas": settings.replicas,
        "max_replicas": settings.max_replicas,
        "target_ongoing_requests": settings.requests_per_replica,
    }
    return {**options, "autoscaling_config": scaling}


def _source(place: Place) -> str:
    """What vLLM is told to load: a local path, or a hub name."""
    return place.uri if place.is_local else str(fetched_path(place, MODEL_CACHE))


def smoke_problem() -> Problem:
    """What every model is asked once."""
    return Problem(problem_id(SMOKE_PROBLEM), SMOKE_PROBLEM, "5", "integer", None, "smoke", "Apache-2.0", None)
