"""Runs stage 6 on Ray Serve: vLLM behind one OpenAI-compatible endpoint, each model asked once for the record."""

import asyncio
import json
import logging
import signal
import socket
import time
from collections.abc import Collection
from http import HTTPStatus
from urllib.error import HTTPError
from urllib.request import Request

import ray
import yaml
from ray import serve
from ray.experimental.internal_kv import _internal_kv_get, _internal_kv_put
from ray.serve.context import _get_global_client
from ray.serve.exceptions import RayServeException
from ray.serve.schema import ApplicationStatus

from pipeline.chat import ChatClient
from pipeline.chat.reach import authorization, key_of
from pipeline.config import Config
from pipeline.errors import ConfigError, ResourceError
from pipeline.evaluate.generate import Question, endpoint_of, generate
from pipeline.records import Generation
from pipeline.serve import app_arguments, app_name, app_prefix, smoke_problem
from pipeline.stage import Manifest, StageRun, model_place
from pipeline.storage import Place, write_rows
from pipeline.train import marker
from ray_jobs import cluster, worked
from ray_jobs.progress import Progress
from ray_jobs.teacher import DIRECTLY

POLL_S = 2.0
SHUTDOWN_S = 60
"""What the end of a replica takes beside the answers that it finishes."""
OWNERS = "longthought-serve"
"""Where the cluster keeps, by the names of applications, whose job put them up."""
_started: set[str] = set()
"""The applications that this process takes down in the end."""


def run(config: Config) -> Manifest:
    """Serve the models and ask each: `6_serve/serve.yaml` (for `serve deploy`) and the table `smoke`."""
    stage = StageRun(config, "serve", inputs=("train",))
    if stage.complete:
        return stage.complete
    cluster.connect()
    models = config.serve.models
    with Progress("serve", len(models), "models") as progress:
        start(config, models)
        answers = asyncio.run(_ask_each(config, models))
        progress.reporter.add(done=len(models))
    failed = [answer for answer in answers if answer.status == "failed"]
    if failed:
        raise ResourceError(
            f"the served model {failed[0].model} gives no answer ({failed[0].error}): see the replica's log"
        )
    (stage.folder.place / "serve.yaml").write(yaml.safe_dump(_deployable(config), sort_keys=False).encode())
    write_rows(stage.folder.table("smoke"), Generation, answers)
    tables = {"smoke": len(answers)}
    return stage.finish(
        rows_in=len(answers), rows_out=len(answers), tables=tables, **worked.figures(), requests=len(answers)
    )


def url(config: Config) -> str:
    """Where the served models are reached."""
    host = config.serve.host
    return f"http://{ray.util.get_node_ip_address() if host == '0.0.0.0' else host}:{config.serve.port}/v1"


def start(config: Config, models: tuple[str, ...]) -> None:
    """Serve these models and no others; returns when they answer. Nothing to do where they are served already."""
    name = app_name(config, models)
    _key(config)  # one that is missing is said now
    if _answers(config, name):
        if _owner_is_gone(name):
            _own(name)
        return
    _refuse_another_address(config)
    # First: the run's other models may hold the GPUs that these need.
    _take_down(config, [other for other in serve.status().applications if other.startswith(app_prefix(config))])
    settings = config.serve
    count = len(models) * settings.replicas
    cluster.require(
        config, "serve", count=count, cpus=settings.replica_cpus, gpus=settings.replica_gpus,
        setting="serve.replicas or replica_cpus",
    )  # fmt: skip
    if not serve.status().proxies:
        _refuse_a_taken_port(config)
    logging.getLogger("ray.serve").setLevel(logging.WARNING)
    serve.start(
        proxy_location="HeadOnly",
        http_options={"host": settings.host, "port": settings.port},
        logging_config={"log_level": "WARNING"},
    )
    from ray_jobs.ingress import build  # imports vLLM: only whoever serves pays for it

    app = build(app_arguments(config, models))
    target = serve.RunTarget(app, name=name, route_prefix="/", logging_config={"log_level": "WARNING"})
    _own(name)
    try:
        serve.run_many([target], wait_for_applications_running=False)
    except RayServeException as error:  # another run's models are at our address
        what = str(error).strip().splitlines()[-1]
        raise ResourceError(
            f"cannot serve {', '.join(models)} ({what}): wait until the other run has ended, or take it down (serve shutdown)"
        ) from None
    _wait_until_ready(config, name, models)
    _refuse_another_prompt(config, models)


def stop(config: Config) -> None:
    """Take down what this process serves, if anything; Ray Serve with it, where it then serves nothing."""
    if not (_started and ray.is_initialized()):
        return
    _take_down(config, _started & set(serve.status().applications))
    if not serve.status().applications:
        serve.shutdown()


def _own(name: str) -> None:
    """Have this process take an application down in the end."""
    _started.add(name)
    _internal_kv_put(name, ray.get_runtime_context().get_job_id(), overwrite=True, namespace=OWNERS)


def _owner_is_gone(name: str) -> bool:
    """Whether the driver that put an application up was killed: it would have been taken down else."""
    owner = _internal_kv_get(name, namespace=OWNERS)
    return owner is not None and any(
        job["JobID"] == owner.decode() and job["IsDead"] for job in ray._private.state.jobs()
    )


def _take_down(config: Config, names: Collection[str]) -> None:
    """Answers under way are finished first, for as long as `serve.drain_s` allows."""
    for name in names:
        serve.delete(name, _blocking=False)
    deadline = time.monotonic() + config.serve.drain_s + SHUTDOWN_S
    while left := set(names) & set(serve.status().applications):
        if time.monotonic() > deadline:
            raise ResourceError(
                f"{', '.join(sorted(left))} cannot be taken down: see the replicas' logs (serve status)"
            )
        time.sleep(POLL_S / 4)
    _started.difference_update(names)


def keep_up(config: Config) -> None:
    """Serve until interrupted (Ctrl-C, or SIGTERM from `ray job stop`)."""
    cluster.connect()
    models = config.serve.models
    start(config, models)
    print(f"serving {', '.join(models)} at {url(config)}: Ctrl-C ends it", flush=True)
    try:
        signal.pause()
    except KeyboardInterrupt:
        print(f"stopping: answers under way have {config.serve.drain_s:g} s; Ctrl-C again ends them", flush=True)


def _wait_until_ready(config: Config, name: str, models: tuple[str, ...]) -> None:
    deadline = time.monotonic() + config.serve.ready_timeout_s
    while not _answers(config, name):
        status = serve.status().applications.get(name)
        if status is not None and status.status in (ApplicationStatus.DEPLOY_FAILED, ApplicationStatus.UNHEALTHY):
            raise ResourceError(f"the models {', '.join(models)} cannot be served: {status.message}")
        if time.monotonic() > deadline:
            raise ResourceError(
                f"the models {', '.join(models)} do not answer after {config.serve.ready_timeout_s:g} s: "
                "see the replicas' logs, or raise serve.ready_timeout_s"
            )
        time.sleep(POLL_S)


def _answers(config: Config, name: str) -> bool:
    """Whether this application is up and reached where the config says."""
    status = serve.status().applications.get(name)
    if status is None or status.status != ApplicationStatus.RUNNING:
        return False
    try:
        with DIRECTLY.open(_request(config, "models"), timeout=10):
            return True
    except HTTPError as error:
        if error.code == HTTPStatus.UNAUTHORIZED:
            raise ConfigError(
                f"the served models refuse the key in the environment variable {config.serve.api_key_env} (serve.api_key_env): "
                "set the same key here and on every node"
            ) from None
        return False
    except OSError:
        return False


def _key(config: Config) -> str | None:
    return key_of(endpoint_of(config, config.serve.models[0], url(config)))


def _request(config: Config, path: str, body: dict[str, object] | None = None) -> Request:
    headers = authorization(_key(config))
    data = None if body is None else json.dumps(body).encode()
    return Request(f"{url(config)}/{path}", data, {**headers, "Content-Type": "application/json"})


def _refuse_another_address(config: Config) -> None:
    """Ray Serve listens where its first application asked it to, and takes no other address until it is shut down."""
    client = _get_global_client(raise_if_no_controller_running=False)
    if client is None:
        return
    host, port = client.http_config.host, client.http_config.port
    if (host, port) != (config.serve.host, config.serve.port):
        raise ConfigError(
            f"serve.host and serve.port are {config.serve.host} and {config.serve.port}, but Ray Serve runs on this cluster "
            f"already and listens at {host}:{port}: set serve.host={host} serve.port={port}, or end it (serve shutdown)"
        )


def _refuse_a_taken_port(config: Config) -> None:
    with socket.socket() as probe:
        probe.settimeout(2)
        if probe.connect_ex((config.serve.host, config.serve.port)) == 0:
            raise ConfigError(
                f"serve.port {config.serve.port} is taken by another program: set serve.port to a free one"
            )


def _refuse_another_prompt(config: Config, models: tuple[str, ...]) -> None:
    """A model that is asked in other tokens than it was trained on answers as one that was not trained."""
    for model in models:
        made = marker.read(Place(model_place(config, model), config.storage.endpoint))
        if made is None:  # a base model that lies elsewhere: its tokenizer is the trained ones'
            continue
        messages = [{"role": "user", "content": marker.CHECK_PROMPT}]
        body = {"model": model, "messages": messages, "max_tokens": 1, "return_token_ids": True}
        try:
            with DIRECTLY.open(_request(config, "chat/completions", body), timeout=60) as answer:
                served = json.load(answer).get("prompt_token_ids")
        except (OSError, ValueError) as error:
            raise ResourceError(f"the served model {model} gives no answer ({error}): see the replica's log") from error
        if served != made.check_ids:
            raise ConfigError(
                f"{model} is served with the prompt {served}, and was trained with {made.check_ids}: let serve.engine set no "
                "other tokenizer or chat_template"
            )


async def _ask_each(config: Config, models: tuple[str, ...]) -> list[Generation]:
    answers = []
    for model in models:
        async with ChatClient(endpoint_of(config, model, url(config))) as client:
            answers.append(await generate(Question(model, "smoke", 0, smoke_problem()), client, None))
    return answers


def _deployable(config: Config) -> dict[str, object]:
    """A config for `serve deploy`."""
    application = {
        "name": app_name(config, config.serve.models),
        "route_prefix": "/",
        "import_path": "ray_jobs.ingress:build",
        "args": app_arguments(config, config.serve.models),
    }
    options = {"host": config.serve.host, "port": config.serve.port}
    return {"proxy_location": "HeadOnly", "http_options": options, "applications": [application]}
