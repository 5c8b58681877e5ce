"""The replay teacher as a real client sees it, and what it refuses to load."""

import asyncio
import json
import sys
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import aiohttp
import openai
import pytest
from servers import ask, child_server, endpoint, free_port, running, teacher

from pipeline import chat, prompts, storage
from pipeline.errors import DataError, EndpointError
from pipeline.records import Message, Trace
from pipeline.replay import FAULTS, Behaviour, ReplayTeacher, check_faults, load_recordings
from pipeline.storage import Place

PROBLEM = "Find x\nwhere 2x = 8.\n\nx is real."
ROWS: list[dict[str, Any]] = [
    {"model": "teacher", "problem": PROBLEM, "content": f"\\boxed{{{n}}}", "reasoning_content": f"thought {n}"}
    for n in range(3)
] + [
    {"model": "other", "problem": PROBLEM, "content": "other's", "finish_reason": "length", "completion_tokens": 77},
    {"model": "teacher", "problem": "Short?", "content": "word " * 100},
]


@asynccontextmanager
async def client(timeout: float = 60, **behaviour: Any) -> AsyncIterator[tuple[openai.AsyncOpenAI, str]]:
    """The openai package's own client on a teacher."""
    async with (
        teacher(ROWS, **behaviour) as url,
        openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, timeout=timeout) as made,
    ):
        yield made, url


async def say(made: openai.AsyncOpenAI, text: str = PROBLEM, model: str = "teacher", **fields: Any) -> Any:
    return await made.chat.completions.create(model=model, messages=[{"role": "user", "content": text}], **fields)


async def stats(url: str, name: str = "stats") -> dict[str, Any]:
    async with aiohttp.ClientSession() as session, session.get(f"{url}/{name}") as response:
        return dict(await response.json())


async def test_the_openai_client_gets_an_answer_whole_and_streamed() -> None:
    async with client() as (made, _):
        whole = await say(made, seed=1)
        pieces = [piece async for piece in await say(made, seed=1, stream=True)]
        listed = [model.id async for model in made.models.list()]
    message = whole.choices[0].message
    assert (message.content, message.reasoning_content, whole.choices[0].finish_reason) == (
        "\\boxed{1}",
        "thought 1",
        "stop",
    )
    assert whole.usage.total_tokens == whole.usage.prompt_tokens + whole.usage.completion_tokens
    deltas = [piece.choices[0].delta for piece in pieces]
    assert "".join(delta.content or "" for delta in deltas) == message.content
    assert "".join(getattr(delta, "reasoning_content", None) or "" for delta in deltas) == "thought 1"
    assert [piece.choices[0].finish_reason for piece in pieces][-1] == "stop" and pieces[-1].usage == whole.usage
    assert listed == ["teacher", "other"]


@pytest.mark.parametrize(
    ("fault", "error"),
    [
        ("429", openai.RateLimitError),
        ("500", openai.InternalServerError),
        ("503", openai.InternalServerError),
        ("drop", openai.APIConnectionError),
        ("timeout", openai.APITimeoutError),
        ("malformed", json.JSONDecodeError),
    ],
)
async def test_a_planted_fault_is_the_error_that_openais_client_knows(fault: str, error: type[Exception]) -> None:
    async with client(1 if fault == "timeout" else 60, faults={fault: 1.0}) as (made, url):
        with pytest.raises(error):
            await say(made)
        served = await stats(url)
    assert (served["answers"], served["by_fault"]) == (0, {fault: 1})


@pytest.mark.parametrize("fault", ["no_choices", "empty", "length"])
async def test_faults_that_look_like_answers(fault: str) -> None:
    async with client(faults={fault: 1.0}) as (made, _):
        answer = await say(made, "Short?")
    if fault == "no_choices":
        assert answer.choices == []
        return
    choice = answer.choices[0]
    assert (len(choice.message.content) < 260, choice.finish_reason) == (
        True,
        "length" if fault == "length" else "stop",
    )


async def test_wrong_keys_models_problems_and_bodies_are_openais_errors() -> None:
    async with client(api_key="right") as (made, url):
        with pytest.raises(openai.AuthenticationError):
            await say(made)
        with pytest.raises(openai.AuthenticationError):
            await made.models.list()
        right = made.with_options(api_key="right")
        assert (await say(right)).choices
        with pytest.raises(openai.NotFoundError):
            await say(right, model="absent")
        with pytest.raises(openai.BadRequestError):
            await say(right, "Never recorded?")
        headers = {"Authorization": "Bearer right"}
        async with aiohttp.ClientSession(headers=headers) as session:
            for body in (b"{", b"[]", b"{}", b'{"model": "teacher", "messages": []}', b'{"model": ["teacher"]}'):
                async with session.post(f"{url}/v1/chat/completions", data=body) as response:
                    assert response.status == 400 and "error" in await response.json()


async def test_a_429_says_when_to_come_back() -> None:
    async with client(faults={"429": 1.0}, retry_after_s=0.25) as (made, _):
        with pytest.raises(openai.RateLimitError) as caught:
            await say(made)
    assert caught.value.response.headers["Retry-After"] == "0.25"


async def test_a_seed_names_a_sample_and_without_one_they_come_in_turn() -> None:
    async with client() as (made, _):
        seeded = [(await say(made, seed=seed)).choices[0].message.content for seed in (2, 0, 2, 4)]
        in_turn = [(await say(made)).choices[0].message.content for _ in range(4)]
    assert seeded == ["\\boxed{2}", "\\boxed{0}", "\\boxed{2}", "\\boxed{1}"]
    assert in_turn == ["\\boxed{0}", "\\boxed{1}", "\\boxed{2}", "\\boxed{0}"]


@pytest.mark.parametrize(
    "messages",
    [
        prompts.student(PROBLEM),
        prompts.teacher(PROBLEM, long_thought=False),
        prompts.teacher(PROBLEM, long_thought=True),
        prompts.rewrite(PROBLEM, "Divide.\n\nShort?\n\nDone.", "4"),
        prompts.rewrite_again(prompts.rewrite(PROBLEM, None, "4"), "Short?\n\nIt is 5.", "its final answer is 5"),
        prompts.rewrite_again(prompts.rewrite(PROBLEM, None, "4"), "", "it was cut off"),
        [Message("system", "Be brief."), Message("user", PROBLEM.upper().replace("\n\n", "  \n\n "))],
    ],
)
async def test_a_problem_is_recognised_in_every_prompt_that_asks_it(messages: list[Message]) -> None:
    async with client() as (made, _):
        sent: Any = [{"role": message.role, "content": message.content} for message in messages]
        answer = await made.chat.completions.create(model="teacher", messages=sent, seed=0)
    assert answer.choices[0].message.content == "\\boxed{0}"


@pytest.mark.parametrize("field", ["max_tokens", "max_completion_tokens"])
async def test_a_token_limit_cuts_the_answer_and_says_so(field: str) -> None:
    async with client() as (made, _):
        answer = await say(made, "Short?", **{field: 10})
        recorded = await say(made, model="other")
    assert (answer.choices[0].finish_reason, answer.usage.completion_tokens) == ("length", 10)
    assert 0 < len(answer.choices[0].message.content) < 100
    assert (recorded.choices[0].finish_reason, recorded.usage.completion_tokens) == ("length", 77)


async def test_faults_come_in_their_shares_and_repeat_with_their_seed() -> None:
    async def seen() -> Counter[str]:
        async with client(faults={"429": 0.3, "500": 0.1}, seed=7) as (made, url):
            await asyncio.gather(*(say(made) for _ in range(300)), return_exceptions=True)
            served = await stats(url)
        return Counter(requests=served["requests"], answers=served["answers"], **served["by_fault"])

    once, again = await asyncio.gather(seen(), seen())
    assert once == again and once["requests"] == 300 == once["answers"] + once["429"] + once["500"]
    assert 60 < once["429"] < 120 and 12 < once["500"] < 50


async def test_faults_are_changed_while_it_runs() -> None:
    async with client(faults={"500": 1.0}) as (made, url):
        with pytest.raises(openai.InternalServerError):
            await say(made)
        async with aiohttp.ClientSession() as session, session.put(f"{url}/faults", json={}) as response:
            assert await response.json() == {}
        assert (await say(made)).choices


async def test_the_count_tells_what_was_answered_twice(tmp_path: Path) -> None:
    loaded = load_recordings(write(tmp_path, *map(json.dumps, ROWS)))
    with (tmp_path / "log").open("w") as log:
        async with running(ReplayTeacher(loaded, Behaviour(), log).app()) as url:
            request = chat.chat_request(endpoint(url), prompts.student(PROBLEM), 0)
            async with chat.ChatClient(endpoint(url)) as asker:
                for _ in range(3):
                    await asker.buy(request, None)
                await asker.buy(chat.chat_request(endpoint(url), prompts.student(PROBLEM), 1), None)
            served, each = await stats(url), await stats(url, "answered")
    assert (served["answers"], served["distinct_answers"], served["answered_again"]) == (4, 2, 2)
    assert each[request.request_id] == 3
    logged = [json.loads(line)["request"] for line in (tmp_path / "log").read_text().splitlines()]
    assert Counter(logged) == each


def write(folder: Path, *lines: str) -> str:
    path = folder / "traces.jsonl"
    path.write_text("\n".join(lines), "utf-8")
    return str(path)


@pytest.mark.parametrize(
    ("lines", "said"),
    [
        (['{"problem": "p", "content": "c"}', "", "{cut"], ":3 is no JSON"),
        (['{"problem": "p"}'], ":1 has no problem (or prompt) with a content (or response): add them"),
        (['{"content": "c"}'], ":1 has no problem (or prompt)"),
        (['{"problem": 5, "content": "c"}'], ":1 has no problem (or prompt)"),
        (["[1]"], ":1 has no problem (or prompt)"),
        ([""], "holds no recorded traces"),
        (['{"problem": "p", "content": "", "status": "failed"}'], "holds no recorded traces"),
    ],
)
def test_recordings_that_cannot_be_used_are_one_line(lines: list[str], said: str, tmp_path: Path) -> None:
    path = write(tmp_path, *lines)
    with pytest.raises(DataError) as caught:
        load_recordings(path)
    assert said in str(caught.value) and path in str(caught.value) and "\n" not in str(caught.value)


def test_recordings_that_are_not_there_are_one_line(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"no recorded traces at .*none\.jsonl"):
        load_recordings(str(tmp_path / "none.jsonl"))
    with pytest.raises(DataError, match="holds no Parquet files"):
        load_recordings(str(tmp_path))


@pytest.mark.parametrize(
    ("faults", "said"),
    [({"418": 0.1}, "unknown fault '418'"), ({"429": 0.6, "500": 0.5}, "at most 1"), ({"429": -1.0}, "at most 1")],
)
def test_faults_that_make_no_sense_are_refused(faults: dict[str, float], said: str) -> None:
    with pytest.raises(DataError, match=said):
        check_faults(faults)
    assert check_faults(dict.fromkeys(FAULTS, 0.1)) == dict.fromkeys(FAULTS, 0.1)


def trace(sample: int, status: Any, response: str, reasoning: str | None) -> Trace:
    prompt = prompts.teacher(PROBLEM, long_thought=False)[-1].content
    return Trace(
        str(sample),
        f"r{sample}",
        "p",
        sample,
        "distill",
        prompt,
        response,
        reasoning,
        status,
        None,
        10,
        20,
        0.1,
        0.1,
        "teacher",
    )


async def test_a_runs_own_traces_are_replayed_as_they_ended(tmp_path: Path) -> None:
    rows = [
        trace(0, "ok", "\\boxed{4}", "deep"), trace(1, "truncated", "", "cut"),
        trace(2, "failed", "", None), trace(3, "refused", "no", None),
    ]  # fmt: skip
    storage.write_rows(Place(str(tmp_path / "traces")), Trace, rows)
    recordings = load_recordings(str(tmp_path / "traces"))
    assert len(recordings) == 3
    async with running(ReplayTeacher(recordings, Behaviour()).app()) as url:
        settings = endpoint(url)
        found = []
        async with chat.ChatClient(settings) as asker:
            for sample in range(3):
                request = chat.chat_request(settings, prompts.teacher(PROBLEM, long_thought=False), sample)
                outcome = await asker.buy(request, None)
                replayed = chat.to_trace(outcome, request, "p", sample, "distill", settings.price)
                found.append((replayed.status, replayed.response, replayed.reasoning))
    assert found == [("ok", "\\boxed{4}", "deep"), ("truncated", "", "cut"), ("refused", "no", None)]


async def test_the_command_serves_until_it_is_killed_and_its_absence_is_noticed(tmp_path: Path) -> None:
    port = free_port()
    path = write(tmp_path, json.dumps({"model": "teacher", "problem": "2 + 2?", "content": "4"}))
    command = [sys.executable, "-m", "ray_jobs", "teacher", "--replay", path, "--port", str(port)]
    settings = endpoint(f"http://127.0.0.1:{port}", unreachable_s=0.5, max_attempts=8)
    with child_server(command, f"http://127.0.0.1:{port}/stats") as process:
        assert (await ask(settings)).reply
        process.kill()
        process.wait()
        with pytest.raises(EndpointError, match="cannot be reached"):
            await ask(settings)
