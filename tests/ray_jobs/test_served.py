"""A student behind Ray Serve and vLLM: asked over HTTP, evaluated at token budgets, reported."""

import dataclasses
import http.client
import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import openai
import pytest
import ray
import small
from local_servers import addresses, free_port

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.records import Generation, Score, Step
from pipeline.stage import StageFolder, StageRun, model_place, root_of
from pipeline.storage import Place, read_rows, write_rows
from pipeline.train import marker, model
from ray_jobs import cli

pytestmark = [pytest.mark.ray, pytest.mark.serve, pytest.mark.timeout(900)]

BUDGETS = [8, 16, 32, 64]
AT_ONCE, WAITING = 16, 64
"""Requests that the replica takes, and that may wait for it."""


@pytest.fixture(scope="module")
def served(ray_cluster: None, tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Config, list[str]]]:
    """The base model of the demo, served for all tests of this file."""
    folder = tmp_path_factory.mktemp("served")
    small.write_problems(folder)
    small.write_heldout(folder)
    settings = [
        *small.overrides(folder, str(folder / "run"), "http://127.0.0.1:1/v1"),
        f"serve.port={free_port()}",
        "serve.models=[base]",
        f"serve.requests_per_replica={AT_ONCE}",
        f"serve.max_queued={WAITING}",
        "serve.drain_s=5",
        "serve.api_key_env=LONGTHOUGHT_TEST_KEY",
        "evaluate.models=[base]",
        f"evaluate.budgets={BUDGETS}",
    ]
    config = small.config(settings)
    place_base_model(config)
    from ray_jobs import serve

    serve.run(config)
    yield config, settings
    serve.stop(config)


def place_base_model(config: Config) -> None:
    """What `train` leaves where nothing is trained: the base model's folder and a manifest."""
    stage = StageRun(config, "train")
    source = model.find(config.train.model)
    import torch

    weights = model.load_model(source, torch.bfloat16)
    target = Place(str(Path(config.storage.root).absolute())) / "5_train" / "models" / "base"
    model.export(target, weights, model.load_tokenizer(source), marker.Made("base", []))
    stage.finish(rows_in=0, rows_out=0, tables={"steps": write_rows(stage.folder.table("steps"), Step, [])})


def url(config: Config) -> str:
    return f"http://127.0.0.1:{config.serve.port}/v1"


def test_the_stage_leaves_a_config_for_serve_deploy_and_a_smoke_record(served):
    config, _ = served
    folder = StageFolder(root_of(config), "serve")
    assert folder.require().rows_out == 1
    (smoke,) = read_rows(folder.table("smoke"), Generation)
    assert smoke.model == "base" and smoke.status in ("ok", "truncated") and smoke.tokens and smoke.prompt_tokens
    import yaml
    from ray.serve.schema import ServeDeploySchema

    ServeDeploySchema.model_validate(yaml.safe_load((folder.place / "serve.yaml").read()))


def ask(config: Config, content: str, key: str | None = "sesame", max_tokens: int = 8) -> tuple[int, dict[str, Any]]:
    """Status and body."""
    body = {"model": "base", "messages": [{"role": "user", "content": content}], "max_tokens": max_tokens}
    headers = {"Content-Type": "application/json"} | ({"Authorization": f"Bearer {key}"} if key is not None else {})
    request = urllib.request.Request(f"{url(config)}/chat/completions", json.dumps(body).encode(), headers)
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            return response.status, json.load(response)
    except urllib.error.HTTPError as error:
        return error.code, json.load(error)


def test_plain_http_gets_an_answer(served):
    config, _ = served
    assert addresses(config.serve.port) == {"127.0.0.1"}, "unless told otherwise"
    status, body = ask(config, "Say hello.")
    assert status == 200 and body["choices"][0]["message"]["content"]


@pytest.mark.parametrize("key", [None, "", "wrong", "sesame2"])
def test_without_the_key_there_is_no_answer(served, key):
    config, _ = served
    status, body = ask(config, "Say hello.", key)
    assert status == 401 and "Authorization: Bearer" in body["error"]["message"]
    with pytest.raises(urllib.error.HTTPError, match="401"):
        urllib.request.urlopen(f"{url(config)}/models", timeout=60)


def test_a_driver_with_another_key_is_told_so_at_once(served, monkeypatch):
    from ray_jobs import serve

    config, _ = served
    monkeypatch.setenv("LONGTHOUGHT_TEST_KEY", "another")
    with pytest.raises(ConfigError, match="refuse the key in the environment variable LONGTHOUGHT_TEST_KEY"):
        serve.start(config, ("base",))


@pytest.mark.parametrize("address", [{"host": "127.0.0.2"}, {"port": 1}])
def test_another_address_than_ray_serves_is_refused_before_anything_is_taken_down(served, address):
    from ray_jobs import serve

    config, _ = served
    other = config.model_copy(update={"serve": config.serve.model_copy(update=address)})
    with pytest.raises(ConfigError, match=f"listens at 127.0.0.1:{config.serve.port}: set serve.host=127.0.0.1 "):
        serve.start(other, ("base",))
    status, _ = ask(config, "Say hello.")
    assert status == 200


def test_a_prompt_that_is_too_long_is_refused_naming_the_limit(served):
    config, _ = served
    status, body = ask(config, "one two three " * config.serve.max_model_len)
    assert status == 400 and str(config.serve.max_model_len) in body["error"]["message"]


def test_more_requests_than_may_wait_get_503_at_once(served):
    config, _ = served
    with ThreadPoolExecutor(2 * (AT_ONCE + WAITING)) as pool:
        asked = [
            pool.submit(ask, config, f"Count from {n} to 500.", max_tokens=64) for n in range(2 * (AT_ONCE + WAITING))
        ]
        answers = [each.result() for each in asked]
    statuses = Counter(status for status, _ in answers)
    assert set(statuses) == {200, 503} and statuses[200] >= AT_ONCE + WAITING, statuses
    assert all("serve.max_queued" in body["error"]["message"] for status, body in answers if status == 503)


def replicas() -> set[int]:
    """The processes of the model's replicas."""
    from ray.util.state import list_actors

    actors = list_actors(ray.get_runtime_context().gcs_address, filters=[("state", "=", "ALIVE")])
    return {actor.pid for actor in actors if "ServeReplica" in actor.class_name and ":Server:" in actor.class_name}


@pytest.mark.slow
def test_a_replica_that_is_killed_costs_no_wrong_status_and_comes_back(served):
    config, _ = served
    (before,) = replicas()
    with ThreadPoolExecutor(16) as pool:
        under_way = [pool.submit(ask, config, f"Count from {n} to 500.", max_tokens=200) for n in range(16)]
        time.sleep(2)
        os.kill(before, signal.SIGKILL)
        statuses = Counter(answer.result()[0] for answer in under_way)
    assert set(statuses) <= {200, 503}, statuses
    assert ask(config, "Say hello.")[0] == 200
    (after,) = replicas()
    assert after != before


def test_the_openai_client_gets_an_answer_streaming_and_not(served):
    config, _ = served
    with openai.OpenAI(base_url=url(config), api_key="sesame") as client:
        assert [listed.id for listed in client.models.list()] == ["base"]
        question = {"role": "user", "content": "Count from one to five."}
        asked = {"model": "base", "messages": [question], "max_tokens": 16, "temperature": 0}
        whole = client.chat.completions.create(**asked).choices[0].message.content
        pieces = [
            chunk.choices[0].delta.content or ""
            for chunk in client.chat.completions.create(**asked, stream=True)
            if chunk.choices
        ]
    assert whole and "".join(pieces) == whole
    assert len(pieces) > 1


def test_what_a_killed_driver_left_up_is_taken_down_by_the_next(served, monkeypatch):
    """And what a living one serves is not."""
    from ray_jobs import serve

    config, _ = served
    (name,) = serve._started
    monkeypatch.setattr(serve, "_started", set())
    serve.start(config, ("base",))
    assert not serve._started, "this driver lives"
    own = "import ray, sys; ray.init(sys.argv[1], logging_level='ERROR'); from ray_jobs import serve; serve._own(sys.argv[2])"
    subprocess.run([sys.executable, "-c", own, ray.get_runtime_context().gcs_address, name], cwd=small.REPO, check=True)
    serve.start(config, ("base",))
    assert serve._started == {name}


def test_a_model_that_is_asked_in_other_tokens_than_in_training_is_refused(served):
    from ray_jobs.serve import _refuse_another_prompt

    config, _ = served
    folder = Place(model_place(config, "base"))
    made = marker.read(folder)
    assert made is not None and made.check_ids
    marker.write(folder, dataclasses.replace(made, check_ids=made.check_ids[:-1]))
    try:
        with pytest.raises(ConfigError, match=r"^base is served with the prompt \[1, .*and was trained with \[1, "):
            _refuse_another_prompt(config, ("base",))
    finally:
        marker.write(folder, made)
    _refuse_another_prompt(config, ("base",))


def test_every_answer_is_scored_at_every_budget(served, capsys):
    config, settings = served
    cli.main(small.arguments("evaluate", settings))
    folder = StageFolder(root_of(config), "evaluate")
    made = folder.require()
    assert made.rows_in == made.rows_out == 3
    generations = {row.generation_id: row for row in read_rows(folder.table("generations"), Generation)}
    scores = read_rows(folder.table("scores"), Score)
    assert len(scores) == 3 * (len(BUDGETS) + 1) * 2
    for score in scores:
        answer = generations[score.generation_id]
        assert len(answer.tokens) == answer.completion_tokens <= BUDGETS[-1]
        if score.curve == "budget_forced":
            assert score.truncated == (len(answer.tokens) > score.budget or answer.status == "truncated")
            if not score.truncated:
                assert score.tokens == len(answer.tokens) and not score.forced
            if score.forced:
                assert score.tokens > score.budget

    (folder.place / "manifest.json").delete()
    cli.main(small.arguments("evaluate", settings))
    again = folder.require()
    assert made.requests > 0
    assert again.requests == 0 and again.stored_replies > 0, "nothing is generated twice"
    assert sorted(map(repr, read_rows(folder.table("scores"), Score))) == sorted(map(repr, scores))

    cli.main(small.arguments("report", settings))
    assert "base" in capsys.readouterr().out
    page = (StageFolder(root_of(config), "report").place / "index.html").read().decode()
    assert "base" in page and "<svg" in page


@pytest.mark.slow
def test_of_two_replicas_one_may_die_and_the_other_answers_all(served):
    """The last test of this file: it serves in another way."""
    from ray_jobs import serve

    config, _ = served
    two = config.model_copy(update={"serve": config.serve.model_copy(update={"replicas": 2, "replica_cpus": 0.25})})
    serve.start(two, ("base",))
    first, second = replicas()
    with ThreadPoolExecutor(64) as pool:
        whole = [pool.submit(ask, two, f"Count from {n} to 500.", max_tokens=200) for n in range(16)]
        streams = [pool.submit(streamed, two, f"Count from {n} to 900.", max_tokens=200) for n in range(16)]
        time.sleep(3)
        os.kill(first, signal.SIGKILL)
        after = [pool.submit(ask, two, f"Count from {n} to 700.") for n in range(16)]
        assert Counter(answer.result()[0] for answer in after) == {200: 16}
        statuses = Counter(answer.result()[0] for answer in whole)
        ended = Counter(stream.result() for stream in streams)
    assert statuses == {200: 16}, "what had no answer yet goes to the other replica"
    assert ended["whole"] >= 1 and set(ended) <= {"whole", "told"}, "a stream that breaks off says so"
    assert second in replicas()


def streamed(config: Config, content: str, max_tokens: int) -> str:
    """How a streamed answer ended: `whole`, `told` that it broke off, or `cut` without a word."""
    body = {
        "model": "base",
        "messages": [{"role": "user", "content": content}],
        "max_tokens": max_tokens,
        "stream": True,
    }
    headers = {"Content-Type": "application/json", "Authorization": "Bearer sesame"}
    request = urllib.request.Request(f"{url(config)}/chat/completions", json.dumps(body).encode(), headers)
    said = b""
    try:
        with urllib.request.urlopen(request, timeout=300) as response:
            for line in response:
                said += line
    except urllib.error.HTTPError as error:
        return "told" if error.code == 503 else "cut"
    except (OSError, http.client.HTTPException):
        return "told"  # the connection was ended before its end
    if b'"error"' in said:
        return "told"
    return "whole" if b'"finish_reason":"' in said.replace(b" ", b"") else "cut"
