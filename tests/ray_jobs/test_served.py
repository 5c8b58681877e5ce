"""A student behind Ray Serve and vLLM: asked over HTTP, evaluated at token budgets, reported."""

import dataclasses
import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import openai
import pytest
import small
from local_servers import free_port

from pipeline.config import Config
from pipeline.errors import ConfigError
from pipeline.records import Generation, Score, Step
from pipeline.stage import StageFolder, StageRun, model_place, root_of
from pipeline.storage import Place, read_rows, write_rows
from pipeline.train import marker, model
from ray_jobs import cli

pytestmark = [pytest.mark.ray, pytest.mark.serve, pytest.mark.timeout(900)]

BUDGETS = [8, 16, 32, 64]


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
        "evaluate.models=[base]",
        f"evaluate.budgets={BUDGETS}",
    ]
    config = small.config(settings)
    place_base_model(config)
    from ray_jobs import serve

    serve.run(config)
    yield config, settings
    serve.stop()


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


def test_plain_http_gets_an_answer(served):
    config, _ = served
    body = {"model": "base", "messages": [{"role": "user", "content": "Say hello."}], "max_tokens": 8}
    request = urllib.request.Request(
        f"{url(config)}/chat/completions", json.dumps(body).encode(), {"Content-Type": "application/json"}
    )
    with urllib.request.urlopen(request, timeout=60) as response:
        assert json.load(response)["choices"][0]["message"]["content"]


def test_the_openai_client_gets_an_answer_streaming_and_not(served):
    config, _ = served
    with openai.OpenAI(base_url=url(config), api_key="none") as client:
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
