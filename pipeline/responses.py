"""The durable store of paid answers: what was bought once is never asked again.

In: replies of a model. Out: replies by request id, after any crash. A `Segment` belongs to one batch of
rows and is named after the range of their keys, so that whoever works on a range of keys later reads
the segments that overlap it and no others: no index, no knob, at any size. On a local disk a segment
is one file that grows; on object storage it is an object for each `FLUSH_S`, for objects cannot grow.
"""

import asyncio
import json
import os
import uuid
from dataclasses import asdict, dataclass, field
from io import FileIO
from pathlib import Path
from typing import Any

from pipeline.errors import DataError
from pipeline.storage import Place

FLUSH_S = 2.0
"""Object storage: the most a lost node can cost, against one PUT for each batch in this time."""
LOCAL_FLUSH_S = 0.02
"""Local disk: replies that arrive within this time share one fsync."""


@dataclass(frozen=True)
class Reply:
    """What a model answered, in one form for every provider. `finish_reason` as in the OpenAI protocol.

    `reasoning` is the long thought where it came apart from `text`. `token_ids` and `prompt_token_ids`
    are there when the endpoint sends them (vLLM's `return_token_ids`), and so
    is `token_ends` (`logprobs`): how many characters of `text` stand after each token.
    """

    request_id: str
    text: str
    reasoning: str | None
    finish_reason: str
    prompt_tokens: int
    cached_tokens: int
    completion_tokens: int
    latency_s: float
    model: str
    prompt_token_ids: list[int]
    token_ids: list[int]
    token_ends: list[int] = field(default_factory=list)


class Segment:
    """The replies to one batch of rows whose keys lie in [`first`, `last`].

    Use as an async context manager: entering reads what earlier runs (or a killed actor) stored of these
    keys, leaving flushes. `put` returns when the reply is durable.
    """

    def __init__(self, folder: Place, first: str, last: str) -> None:
        self._folder = folder
        self._first, self._last = first, last
        self._name = f"{first}-{last}.{uuid.uuid4().hex[:12]}"
        self._known: dict[str, Reply] = {}
        self._pending: list[str] = []
        self._written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer: asyncio.Task[None] | None = None
        self._file: FileIO | None = None
        self._parts = 0

    async def __aenter__(self) -> "Segment":
        self._known = await asyncio.to_thread(self._load)
        return self

    async def __aexit__(self, *_: object) -> None:
        if self._writer is not None:
            await self._writer
        self._close()

    def get(self, request_id: str) -> Reply | None:
        """The reply that was stored for a request."""
        return self._known.get(request_id)

    async def put(self, reply: Reply) -> None:
        """Store a reply; returns once it is durable. Replies that come together are written together."""
        self._known[reply.request_id] = reply
        self._pending.append(json.dumps(asdict(reply), ensure_ascii=True, separators=(",", ":")))
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_pending())
        await asyncio.shield(self._written)

    async def _write_pending(self) -> None:
        while self._pending:
            await asyncio.sleep(LOCAL_FLUSH_S if self._folder.is_local else FLUSH_S)
            lines, self._pending = self._pending, []
            written, self._written = self._written, asyncio.get_running_loop().create_future()
            try:
                await asyncio.to_thread(self._write, ("\n".join(lines) + "\n").encode())
            except Exception as error:
                written.set_exception(error)
            else:
                written.set_result(None)

    def _write(self, data: bytes) -> None:
        if not self._folder.is_local:
            self._next_part().write(data)
            return
        try:
            if self._file is None:
                path = Path(self._next_part().path)
                path.parent.mkdir(parents=True, exist_ok=True)
                self._file = path.open("ab", buffering=0)
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:  # half a line may stand there now: what comes next goes into a file of its own
            self._close()
            raise DataError(
                f"cannot store answers in {self._folder.uri!r}: {error.strerror}: free some space"
            ) from error

    def _next_part(self) -> Place:
        self._parts += 1
        return self._folder / f"{self._name}.{self._parts:06d}.jsonl"

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None

    def _load(self) -> dict[str, Reply]:
        known = {}
        for file in self._folder.files(".jsonl"):
            first, _, last = file.name.partition(".")[0].partition("-")
            if first <= self._last and last >= self._first:
                known.update({reply.request_id: reply for reply in read_segment(file)})
        return known


def read_segment(file: Place) -> list[Reply]:
    """The replies in a segment's file. A last line cut by a crash was never durable and is skipped."""
    replies = []
    for line in file.read().split(b"\n"):
        try:
            values: dict[str, Any] = json.loads(line)
            replies.append(Reply(**values))
        except (ValueError, TypeError):
            continue
    return replies
