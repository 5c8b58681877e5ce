"""What is bought is bought once, and what cannot be stored is not bought."""

import asyncio
from pathlib import Path

from aiohttp import web
from servers import answers, endpoint, scripted

from pipeline import chat, prompts
from pipeline.errors import DataError
from pipeline.responses import Segment
from pipeline.storage import Place


async def test_the_same_question_at_the_same_time_is_bought_once(tmp_path: Path) -> None:
    async with scripted(answers()) as (url, seen):
        settings = endpoint(url)
        request = chat.chat_request(settings, prompts.student("2 + 2?"), 0)
        async with chat.ChatClient(settings) as client, Segment(Place(str(tmp_path)), "0", "f") as segment:
            outcomes = await chat.all_of(client.buy(request, segment) for _ in range(5))
    assert len(seen) == 1 and [outcome.stored for outcome in outcomes] == [False, True, True, True, True]
    (file,) = tmp_path.glob("*.jsonl")
    assert len(file.read_text().splitlines()) == 1


async def test_one_question_in_two_segments_is_bought_once(tmp_path: Path) -> None:
    async with scripted(answers()) as (url, seen):
        settings = endpoint(url)
        request = chat.chat_request(settings, prompts.student("?"), 0)
        for name in ("one", "two"):
            (tmp_path / name).mkdir()
        async with (
            chat.ChatClient(settings) as client,
            Segment(Place(str(tmp_path / "one")), "0", "f") as one,
            Segment(Place(str(tmp_path / "two")), "0", "f") as two,
        ):
            outcomes = await asyncio.gather(client.buy(request, one), client.buy(request, two))
        assert outcomes[0].reply == outcomes[1].reply and len(seen) == 1
        for name in ("one", "two"):
            async with Segment(Place(str(tmp_path / name)), "0", "f") as again:
                assert again.get(request.request_id) == outcomes[0].reply


async def test_what_cannot_be_stored_is_not_bought_again_and_again(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")

    async def slowly(request: web.Request) -> web.StreamResponse:
        await asyncio.sleep(0.1)
        return await answers()(request)

    async with scripted(slowly) as (url, seen):
        place = Place(str(tmp_path / "file" / "below"))
        settings = endpoint(url, max_in_flight=2)
        async with chat.ChatClient(settings) as client, Segment(place, "0", "f") as segment:
            requests = [chat.chat_request(settings, prompts.student(str(number)), 0) for number in range(50)]
            outcomes = await asyncio.gather(*(client.buy(each, segment) for each in requests), return_exceptions=True)
    assert all(isinstance(outcome, DataError) and "cannot store" in str(outcome) for outcome in outcomes)
    assert len(seen) <= 4, "those that were under way"
