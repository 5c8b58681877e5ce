"""One generation read at every token budget, against a server that speaks vLLM's protocol."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from servers import endpoint, running

from pipeline import chat, prompts
from pipeline.config import Benchmark, Config, Evaluate
from pipeline.errors import EndpointError
from pipeline.evaluate.budgets import Reading, forced, natural, scores
from pipeline.evaluate.generate import Question, endpoint_of, generate
from pipeline.grading import Grader
from pipeline.records import Generation, Problem, problem_id
from pipeline.responses import Segment
from pipeline.storage import Place

PROBLEM = Problem(problem_id("6 + 6?"), "6 + 6?", "12", "integer", None, "b", "MIT", None)
PROMPT = [900, 901]


class Student:
    """A model whose tokens are the characters of its texts."""

    def __init__(self, text: str, finish: str = "stop", forced: str = "12}", status: int = 200) -> None:
        self.text, self.finish, self.forced, self.status = text, finish, forced, status
        self.reasoning: str | None = None
        self.continued: list[str] = []
        self.chats: list[dict[str, Any]] = []
        self.completions: list[dict[str, Any]] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.add_routes(
            [
                web.post("/v1/chat/completions", self.chat),
                web.post("/v1/completions", self.complete),
            ]
        )
        return app

    async def chat(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.chats.append(body)
        if self.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=self.status)
        message = {"content": self.text, **({"reasoning_content": self.reasoning} if self.reasoning else {})}
        choice: dict[str, Any] = {"message": message, "finish_reason": self.finish}
        answer: dict[str, Any] = {
            "choices": [choice],
            "usage": {"prompt_tokens": 2, "completion_tokens": len(self.text)},
        }
        if body.get("return_token_ids"):
            choice["token_ids"], answer["prompt_token_ids"] = [ord(letter) for letter in self.text], PROMPT
        if body.get("logprobs"):
            choice["logprobs"] = {
                "content": [{"token": letter, "bytes": list(letter.encode())} for letter in self.text]
            }
        return web.json_response(answer)

    async def complete(self, request: web.Request) -> web.Response:
        body = await request.json()
        if isinstance(body["prompt"], str):
            assert body["return_token_ids"] and body["add_special_tokens"] is False
            ids = [ord(letter) for letter in body["prompt"]]
            return web.json_response({"choices": [{"text": "x", "prompt_token_ids": ids, "finish_reason": "length"}]})
        self.completions.append(body)
        if body.get("return_token_ids"):
            said = self.continued.pop(0)
            offsets = {"tokens": list(said), "text_offset": list(range(len(said)))}
            choice = {
                "text": said,
                "finish_reason": "stop",
                "token_ids": [ord(letter) for letter in said],
                "logprobs": offsets,
            }
            return web.json_response({"choices": [choice], "usage": {"completion_tokens": len(said)}})
        if not self.forced:
            return web.json_response({"error": {"message": "prompt too long", "code": 400}}, status=400)
        choice = {"text": self.forced, "finish_reason": "stop"}
        return web.json_response({"choices": [choice], "usage": {"completion_tokens": len(self.forced)}})


def settings(*budgets: int, **more: Any) -> Evaluate:
    return Evaluate(benchmarks=(Benchmark(name="b", path="b.jsonl"),), budgets=budgets, **more)


@asynccontextmanager
async def asked(
    student: Student, folder: Path, **more: Any
) -> AsyncIterator[tuple[Generation, chat.ChatClient, Segment]]:
    extra = {
        "sampling": {"max_tokens": 64, "temperature": 0.0, "extra": {"return_token_ids": True, "logprobs": True}}
    } | more
    async with (
        running(student.app()) as url,
        Segment(Place(str(folder)), "0", "f") as segment,
        chat.ChatClient(endpoint(url, **extra)) as client,
    ):
        yield await generate(Question("student", "b", 0, PROBLEM), client, segment), client, segment


async def readings(generation: Generation, told: Evaluate, client: chat.ChatClient, segment: Segment) -> list[Reading]:
    return [natural(generation, told), *await forced(generation, told, client, segment)]


async def read(student: Student, folder: Path, *budgets: int, **more: Any) -> dict[tuple[str, int], Reading]:
    async with asked(student, folder, **more) as (generation, client, segment):
        found = await readings(generation, settings(*budgets), client, segment)
    return {(reading.curve, reading.budget): reading for reading in found}


async def test_the_student_is_asked_what_it_was_trained_on(tmp_path: Path) -> None:
    student = Student("so \\boxed{12}")
    async with asked(student, tmp_path) as (generation, _, _):
        pass
    (body,) = student.chats
    assert body["messages"] == [{"role": "user", "content": prompts.student(PROBLEM.problem)[0].content}]
    assert (body["max_tokens"], body["temperature"], body["return_token_ids"]) == (64, 0.0, True)
    assert (generation.status, generation.completion_tokens, generation.prompt_tokens) == ("ok", 13, PROMPT)
    assert generation.tokens == [ord(letter) for letter in "so \\boxed{12}"]


async def test_a_thought_that_ends_early_is_gone_on_with(tmp_path: Path) -> None:
    """s1, section 3.1: its end gives way to "Wait"; at natural length nothing changes."""
    student = Student("<think>6</think>\\boxed{13}")
    student.continued = [", no</think>\\boxed{12}", ", yes</think>\\boxed{12}!"]
    async with asked(student, tmp_path) as (generation, client, segment):
        found = {
            (reading.curve, reading.budget): reading
            for reading in await readings(generation, settings(16, 22, 64, waits=2), client, segment)
        }
    thought = "<think>6Wait, noWait, yes</think>\\boxed{12}!"
    assert found["natural", 64].text == "<think>6</think>\\boxed{13}"
    assert found["budget_forced", 64] == Reading("budget_forced", 64, thought, len(thought), False, False)
    cut = found["budget_forced", 22]
    assert cut.forced and cut.text.startswith(thought[:22] + "\n</think>")
    first, second = student.completions[:2]
    assert first["prompt"] == [*PROMPT, *map(ord, "<think>6Wait")] and first["max_tokens"] == 64 - 12
    assert second["prompt"] == [*PROMPT, *map(ord, "<think>6Wait, noWait")]


async def test_what_has_no_thought_is_not_gone_on_with(tmp_path: Path) -> None:
    student = Student("so \\boxed{12}")
    async with asked(student, tmp_path) as (generation, client, segment):
        found = await readings(generation, settings(64, waits=2), client, segment)
    assert [reading.text for reading in found] == [student.text] * 2 and not student.completions


async def test_a_budget_above_the_answers_length_changes_nothing(tmp_path: Path) -> None:
    student = Student("so \\boxed{12}")
    found = await read(student, tmp_path, 13, 20)
    for budget in (13, 20):
        assert found["budget_forced", budget] == Reading("budget_forced", budget, student.text, 13, False, False)
    assert found["natural", 20] == Reading("natural", 20, student.text, 13, False, False)
    assert student.completions == []


async def test_below_it_the_answer_is_cut_and_the_final_answer_asked_for(tmp_path: Path) -> None:
    student = Student("think and think, so \\boxed{13}", forced="12}.")
    found = await read(student, tmp_path, 5, 40)
    reading = found["budget_forced", 5]
    assert reading.text == "think" + prompts.FORCED_ANSWER + "12}."
    assert (reading.tokens, reading.truncated, reading.forced) == (5 + len(prompts.FORCED_ANSWER) + 4, True, True)
    (body,) = student.completions
    assert body["prompt"] == [*PROMPT, *map(ord, "think"), *map(ord, prompts.FORCED_ANSWER)]
    assert (body["max_tokens"], body["temperature"], body["seed"]) == (24, 0.0, 0)
    assert found["budget_forced", 40].text == student.text


async def test_an_open_thought_is_closed_before_the_answer_is_asked_for(tmp_path: Path) -> None:
    found = await read(Student("<think>\nit may be \\boxed{13} or not</think>\\boxed{12}"), tmp_path, 30, 64)
    assert found["budget_forced", 30].text.endswith("</think>" + prompts.FORCED_ANSWER + "12}")
    assert found["budget_forced", 30].forced and not found["budget_forced", 64].forced


@pytest.mark.parametrize(
    ("text", "budget", "is_forced"),
    [
        ("so \\boxed{12} and more words", 15, False),
        ("so \\boxed{12} and more words", 12, True),
        ("The answer is \\boxed{12}.", 22, True),
        ("The answer is \\boxed{12}.", 15, True),
        ("The answer is 12 and more words", 15, True),
        ("The answer is 12\nand more words", 18, False),
    ],
)
async def test_an_answer_is_forced_only_where_none_stands_before_the_cut(
    text: str, budget: int, is_forced: bool, tmp_path: Path
) -> None:
    student = Student(text)
    reading = (await read(student, tmp_path, budget, 60))["budget_forced", budget]
    assert (reading.forced, reading.truncated, len(student.completions)) == (is_forced, True, int(is_forced))
    if not is_forced:
        assert (reading.text, reading.tokens) == (text[:budget], budget)


async def test_an_answer_cut_at_the_largest_budget_is_truncated_on_both_curves(tmp_path: Path) -> None:
    student = Student("no end of words ", finish="length")
    found = await read(student, tmp_path, 4, 16)
    assert (found["natural", 16].truncated, found["natural", 16].forced, found["natural", 16].tokens) == (
        True,
        False,
        16,
    )
    assert found["budget_forced", 16].forced and found["budget_forced", 16].truncated


async def test_where_no_token_ids_come_only_the_natural_curve_is_read(tmp_path: Path) -> None:
    found = await read(Student("so \\boxed{12}"), tmp_path, 5, 40, sampling={"max_tokens": 64})
    assert set(found) == {("natural", 40)}


async def test_an_answer_that_its_tokens_do_not_spell_is_cut_by_ids_alone(tmp_path: Path) -> None:
    student = Student("think and think")
    async with asked(student, tmp_path) as (whole, client, segment):
        found = await readings(replace(whole, token_ends=[]), settings(5, 40), client, segment)
    (cut,) = (reading for reading in found if reading.budget == 5)
    assert student.completions[0]["prompt"][:7] == [*PROMPT, *map(ord, "think")]
    assert cut.forced and cut.text == prompts.FORCED_ANSWER + "12}"
    assert [reading.text for reading in found if reading.budget == 40] == ["think and think"] * 2


async def test_a_forced_text_is_tokenized_once_for_all_that_want_it(tmp_path: Path) -> None:
    async with asked(Student("think and think"), tmp_path) as (_, client, segment):
        before = client.counts["requests"]
        ids = await asyncio.gather(*(client.tokenize("the answer", segment) for _ in range(20)))
        assert client.counts["requests"] - before == 1
    assert ids == [[ord(letter) for letter in "the answer"]] * 20


async def test_a_thought_that_the_chat_template_opens_is_a_thought_at_every_budget(tmp_path: Path) -> None:
    student = Student("maybe \\boxed{13}, no</think>so \\boxed{12}")
    found = await read(student, tmp_path, 5, 20, 64)
    for budget in (5, 20):
        reading = found["budget_forced", budget]
        assert (
            reading.text == f"<think>\n{student.text[:budget]}\n</think>{prompts.FORCED_ANSWER}12}}" and reading.forced
        )
    assert found["budget_forced", 64].text == student.text


async def test_a_turn_that_ends_inside_of_the_box_ends_the_box(grader: Grader, tmp_path: Path) -> None:
    student = Student("think and think", forced="\\frac{24}{2}")
    async with asked(student, tmp_path) as (generation, client, segment):
        found = await forced(generation, settings(5), client, segment)
        (made,) = await scores(generation, found, ("final_answer",), grader)
    assert (made.extracted, made.verdict) == ("\\frac{24}{2}", "correct")
    assert made.tokens == 5 + len(prompts.FORCED_ANSWER) + len(student.forced)


async def test_where_the_thought_came_apart_only_the_natural_curve_is_read(tmp_path: Path) -> None:
    student = Student("so \\boxed{12}")
    student.reasoning = "a thought"
    assert set(await read(student, tmp_path, 5, 40)) == {("natural", 40)}


async def test_continuations_are_sampled_as_the_endpoints_answers_are(tmp_path: Path) -> None:
    student = Student("think and think")
    sampling = {
        "max_tokens": 64,
        "temperature": 0.6,
        "top_p": 0.9,
        "extra": {"return_token_ids": True, "logprobs": True},
    }
    await read(student, tmp_path, 5, sampling=sampling, send_seed=False)
    (body,) = student.completions
    assert (body["temperature"], body["top_p"]) == (0.6, 0.9) and "seed" not in body


async def test_a_forced_request_that_fails_is_no_wrong_answer(tmp_path: Path) -> None:
    with pytest.raises(chat.RequestError, match="HTTP 400: prompt too long"):
        await read(Student("think and think", forced=""), tmp_path, 5, 40)


async def test_an_endpoint_that_tokenizes_nothing_says_so(tmp_path: Path) -> None:
    student = Student("think and think")

    async def complete(_: web.Request) -> web.Response:
        if student.status != 200:
            return web.json_response({"error": {"message": "no"}}, status=student.status)
        return web.json_response({"choices": [{"text": "x", "finish_reason": "length"}]})

    app = web.Application()
    app.add_routes([web.post("/v1/chat/completions", student.chat), web.post("/v1/completions", complete)])
    extra = {"sampling": {"max_tokens": 64, "extra": {"return_token_ids": True, "logprobs": True}}, "max_attempts": 1}
    async with (
        running(app) as url,
        Segment(Place(str(tmp_path)), "0", "f") as segment,
        chat.ChatClient(endpoint(url, **extra)) as client,
    ):
        generation = await generate(Question("student", "b", 0, PROBLEM), client, segment)
        student.status = 400
        with pytest.raises(chat.RequestError, match="HTTP 400: no"):
            await readings(generation, settings(5), client, segment)
        student.status = 200
        with pytest.raises(EndpointError, match=r"does not tell token ids .*: is it a vLLM server"):
            await readings(generation, settings(5), client, segment)


@pytest.mark.parametrize("text", ["naïve ∑ 🎉 text", "a\nb"])
async def test_a_cut_falls_between_characters(tmp_path: Path, text: str) -> None:
    async with asked(Student(text), tmp_path) as (generation, _, _):
        assert generation.token_ends == list(range(1, len(text) + 1))


async def test_forced_answers_are_stored_like_all_others(tmp_path: Path) -> None:
    student = Student("think and think, so \\boxed{13}")
    once = await read(student, tmp_path, 5, 7, 40)
    again = await read(student, tmp_path, 5, 7, 40)
    assert once == again
    assert (len(student.chats), len(student.completions)) == (1, 2)


async def test_a_failed_generation_is_failed_and_never_wrong(tmp_path: Path) -> None:
    async with asked(Student("x", status=400), tmp_path) as (generation, _, _):
        pass
    assert (generation.status, generation.error, generation.tokens) == ("failed", "HTTP 400: no (None)", [])


async def test_every_reading_is_scored_under_every_convention(grader: Grader, tmp_path: Path) -> None:
    student = Student("first 7 words, then \\boxed{12}", forced="nothing}")
    async with asked(student, tmp_path) as (generation, client, segment):
        found = await readings(generation, settings(9, 40), client, segment)
        made = await scores(generation, found, ("final_answer", "last_number"), grader)
    table = {(score.curve, score.budget, score.convention): (score.verdict, score.tokens) for score in made}
    spent = 9 + len(prompts.FORCED_ANSWER) + len("nothing}")
    assert table == {
        ("natural", 40, "final_answer"): ("correct", 30), ("natural", 40, "last_number"): ("correct", 30),
        ("budget_forced", 9, "final_answer"): ("incorrect", spent), ("budget_forced", 9, "last_number"): ("incorrect", spent),
        ("budget_forced", 40, "final_answer"): ("correct", 30), ("budget_forced", 40, "last_number"): ("correct", 30),
    }  # fmt: skip
    assert {score.generation_id for score in made} == {generation.generation_id}


def test_the_runs_own_models_are_asked_for_the_largest_budget_and_their_tokens(demo_tree: dict[str, Any]) -> None:
    own = endpoint_of(Config.model_validate(demo_tree), "stage2", "http://127.0.0.1:1/v1")
    assert (own.model, own.sampling.max_tokens, own.sampling.extra) == (
        "stage2",
        64,
        {"return_token_ids": True, "logprobs": True},
    )
    assert own.api_key_env is None
