"""What was paid for is durable when `put` returns, and found again by whoever works on its keys."""

import asyncio
import json
import random
import resource
import signal
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from servers import REPO, free_port

from pipeline import responses
from pipeline.errors import DataError
from pipeline.responses import Reply, Segment
from pipeline.storage import Place


def reply(name: str, text: str = "a\nb\u2028é\0") -> Reply:
    return Reply(name, text, "thought", "stop", 10, 4, 20, 0.5, "m", [1, 2], [3])


async def stored(place: Place, name: str, first: str = "0", last: str = "f") -> Reply | None:
    async with Segment(place, first, last) as segment:
        return segment.get(name)


async def test_a_reply_is_found_again_as_it_was(place: Place) -> None:
    async with Segment(place, "0", "f") as segment:
        assert segment.get("r1") is None
        await segment.put(reply("r1"))
        assert segment.get("r1") == reply("r1")
    assert await stored(place, "r1") == reply("r1")


CHILD = """
import asyncio, os, signal, sys
from pipeline.responses import Reply, Segment
from pipeline.storage import Place
async def main():
    async with Segment(Place(sys.argv[1]), "0", "f") as segment:
        for n in range(3):
            await segment.put(Reply(f"r{n}", "x" * 100_000, None, "stop", 1, 0, 1, 0.1, "m", [], []))
        never = asyncio.create_task(segment.put(Reply("r3", "y", None, "stop", 1, 0, 1, 0.1, "m", [], [])))
        await asyncio.sleep(0)
        os.kill(os.getpid(), signal.SIGKILL)
asyncio.run(main())
"""


async def test_a_reply_outlives_a_process_that_is_killed_after_put(tmp_path: Path) -> None:
    child = subprocess.run([sys.executable, "-c", CHILD, str(tmp_path)], cwd=REPO)
    assert child.returncode == -signal.SIGKILL
    async with Segment(Place(str(tmp_path)), "0", "f") as segment:
        assert [segment.get(f"r{n}") is not None for n in range(4)] == [True, True, True, False]


@pytest.mark.parametrize("keys", [("0", "f"), ("3fa0", "3fa8")])
async def test_on_s3_a_killed_process_loses_no_reply_that_it_had(
    s3_endpoint: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, keys: tuple[str, str]
) -> None:
    """Even one that was on its way to its object; those of processes that live are left to them."""
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    child = CHILD.replace("sys.argv[1]", "*sys.argv[1:]").replace("asyncio.sleep(0)", "asyncio.sleep(0.5)")
    child = child.replace('"0", "f"', f"*{keys}")
    place = Place(f"s3://bucket/{tmp_path.name}", s3_endpoint)
    assert subprocess.run([sys.executable, "-c", child, place.uri, s3_endpoint], cwd=REPO).returncode == -signal.SIGKILL
    async with Segment(place, "0", "f") as segment:
        assert [segment.get(f"r{n}") is not None for n in range(4)] == [True] * 4
        on_its_way = asyncio.create_task(segment.put(reply("late")))
        await asyncio.sleep(0.1)
        assert await stored(place, "late") is None  # its writer lives
        await on_its_way
    assert await stored(place, "late") == reply("late") and await stored(place, "r3") is not None
    assert not list(tmp_path.rglob("*.jsonl"))


@pytest.mark.parametrize(
    "tail",
    [b'{"request_id": "r2", "text": "cut sho', b"\0" * 4096, b"\xff\xfe garbage", b"null", b"[]", b"5", b'{"a": 1}'],
    ids=["cut", "zeros", "bytes", "null", "list", "number", "fields"],
)  # fmt: skip
async def test_a_line_that_is_no_reply_costs_nothing_else(tail: bytes, tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    async with Segment(place, "0", "f") as segment:
        await segment.put(reply("r1"))
    (file,) = tmp_path.iterdir()
    with file.open("ab") as stream:
        stream.write(tail)
    assert await stored(place, "r1") == reply("r1")
    async with Segment(place, "0", "f") as segment:
        await segment.put(reply("r3"))
    assert await stored(place, "r3") == reply("r3")


async def test_replies_that_come_together_are_written_together(place: Place) -> None:
    async with Segment(place, "0", "f") as segment:
        await asyncio.gather(*(segment.put(reply(f"r{n}")) for n in range(300)))
    assert len(place.files()) == 1
    async with Segment(place, "0", "f") as segment:
        assert all(segment.get(f"r{n}") for n in range(300))


@pytest.mark.parametrize(
    ("first", "last", "found"),
    [("10", "20", True), ("00", "10", True), ("20", "30", True), ("15", "16", True), ("00", "ff", True), ("00", "0f", False), ("21", "30", False)],
)  # fmt: skip
async def test_a_segment_reads_what_overlaps_its_keys(first: str, last: str, found: bool, tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    async with Segment(place, "10", "20") as segment:
        await segment.put(reply("r"))
    assert (await stored(place, "r", first, last) is not None) == found


async def test_whatever_ranges_were_stored_a_range_reads_all_that_overlap_it(place: Place) -> None:
    rng = random.Random(0)

    def keys() -> tuple[str, str]:
        first = rng.randrange(16**4)
        last = min(16**4 - 1, first + rng.choice([0, 1, 16, 300, 5000, 60_000]))
        return f"{first:04x}", f"{last:04x}"

    async def store(name: str, first: str, last: str) -> None:
        async with Segment(place, first, last) as segment:
            await segment.put(reply(name))

    ranges = {f"r{number}": keys() for number in range(12)}
    await asyncio.gather(*(store(name, *of_it) for name, of_it in ranges.items()))
    for first, last in [keys() for _ in range(12)]:
        async with Segment(place, first, last) as segment:
            found = {name for name in ranges if segment.get(name)}
        assert found == {name for name, (begin, end) in ranges.items() if begin <= last and end >= first}


async def test_a_segment_lies_where_only_those_whose_keys_begin_alike_look(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    for first, last in (("3fa0", "3fa8"), ("3f00", "3fff"), ("00", "ff"), ("c", "c")):
        async with Segment(place, first, last) as segment:
            await segment.put(reply(first))
    folders = {str(path.parent.relative_to(tmp_path)): path.name[:2] for path in tmp_path.rglob("*.jsonl")}
    assert folders == {"3/f/a": "3f", "3/f": "3f", ".": "00", "c": "c-"}


async def test_two_workers_on_the_same_keys_do_not_disturb_each_other(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    async with Segment(place, "0", "f") as one, Segment(place, "0", "f") as two:
        await asyncio.gather(one.put(reply("r1")), two.put(reply("r2")))
    assert await stored(place, "r1") and await stored(place, "r2")


async def test_on_s3_each_write_is_an_object_of_its_own(s3_endpoint: str, tmp_path: Path) -> None:
    place = Place(f"s3://bucket/{tmp_path.name}", s3_endpoint)
    async with Segment(place, "0", "f") as segment:
        await asyncio.gather(segment.put(reply("r1")), segment.put(reply("r2")))
        await segment.put(reply("r3"))
        assert len(place.files(".jsonl")) == 2
    assert [await stored(place, name) is not None for name in ("r1", "r2", "r3")] == [True] * 3


async def test_a_store_that_cannot_be_reached_fails_the_put(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch) -> None:
    segment = Segment(Place("s3://bucket/x", f"http://127.0.0.1:{free_port()}"), "0", "f")
    with pytest.raises(DataError, match="check bucket, credentials and endpoint"):
        await segment.put(reply("r1"))


@pytest.fixture
def file_limit() -> Iterator[int]:
    """Files of this process cannot grow beyond this size: what a full disk looks like to a writer."""
    before, handler = resource.getrlimit(resource.RLIMIT_FSIZE), signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (150_000, before[1]))
    yield 150_000
    resource.setrlimit(resource.RLIMIT_FSIZE, before)
    signal.signal(signal.SIGXFSZ, handler)


async def test_a_full_disk_fails_its_put_and_loses_nothing_before_or_after(tmp_path: Path, file_limit: int) -> None:
    place = Place(str(tmp_path))
    async with Segment(place, "0", "f") as segment:
        await segment.put(reply("r1"))
        with pytest.raises(DataError, match=r"cannot store answers in .*: File too large"):
            await segment.put(reply("big", "x" * 2 * file_limit))
        await segment.put(reply("r2"))
    assert [await stored(place, name) is not None for name in ("r1", "big", "r2")] == [True, False, True]


async def test_a_put_after_the_segments_end_is_durable_all_the_same(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    async with Segment(place, "0", "f") as segment:
        await segment.put(reply("r1"))
    await segment.put(reply("straggler"))
    assert await stored(place, "straggler")


async def test_the_end_of_a_segment_waits_for_what_is_on_its_way(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    async with Segment(place, "0", "f") as segment:
        waiting = asyncio.create_task(segment.put(reply("r1")))
        await asyncio.sleep(0)
    assert await stored(place, "r1")
    await waiting


async def test_a_cancelled_put_is_written_all_the_same(tmp_path: Path) -> None:
    place = Place(str(tmp_path))
    async with Segment(place, "0", "f") as segment:
        task = asyncio.create_task(segment.put(reply("r1")))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await segment.put(reply("r2"))
    assert await stored(place, "r1") and await stored(place, "r2")


def test_a_segments_file_is_jsonl_that_anything_reads(tmp_path: Path) -> None:
    async def write() -> None:
        async with Segment(Place(str(tmp_path)), "0", "f") as segment:
            await segment.put(replace(reply("r1"), text="\u2028\n" * 3))

    asyncio.run(write())
    (file,) = tmp_path.iterdir()
    (line,) = file.read_text("ascii").splitlines()
    assert json.loads(line)["text"] == "\u2028\n" * 3
    assert responses.read_segment(Place(str(file))) == [replace(reply("r1"), text="\u2028\n" * 3)]
