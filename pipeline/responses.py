"""The durable store of paid answers: what was bought once is never asked again.

In: replies of a model. Out: replies by request id, after any crash. A `Segment` belongs to one batch of
rows and is named after the range of their keys, so that whoever works on a range of keys later reads
the segments that overlap it and no others. It lies in the folder of what its first and last key begin with alike
(`3/f/a/3fa0...-3fa8...`), so that nobody lists others than those on the way there and below: no index, no knob, at any size.
"""

import asyncio
import json
import uuid
from dataclasses import dataclass, field
from itertools import islice, takewhile

from pipeline.journal import Journal, lines_in, lines_of
from pipeline.storage import Place

DEPTH = 3
"""Folders in folders: 4,096 for keys that are hashes, which leaves some 2,000 objects to each of 8 million."""

_ENCODE = json.JSONEncoder(ensure_ascii=True, separators=(",", ":")).encode


@dataclass(frozen=True)
class Reply:
    """What a model answered, in one form for every provider. `finish_reason` as in the OpenAI protocol.

    `reasoning` is the long thought where it came apart from `text`. `token_ids` and `prompt_token_ids`
    are there when the endpoint sends them (vLLM's `return_token_ids`), and so
    is `token_ends` (`logprobs`): how many characters of `text` stand after each token. `reasoning_tokens` are among the
    `completion_tokens`, `cached_tokens` among the `prompt_tokens`.
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
    reasoning_tokens: int = 0


class Segment:
    """The replies to one batch of rows whose keys lie in [`first`, `last`].

    Use as an async context manager: entering reads what earlier runs (or a killed actor) stored of these
    keys, leaving flushes. `put` returns when the reply is durable.
    """

    def __init__(self, folder: Place, first: str, last: str) -> None:
        self._folder = folder
        self._first, self._last = first, last
        alike = takewhile(lambda pair: pair[0] == pair[1], zip(first, last, strict=False))
        self._way = tuple(digit for digit, _ in islice(alike, DEPTH))
        self._known: dict[str, Reply] = {}
        self._journal = Journal(folder, "/".join([*self._way, f"{first}-{last}.{uuid.uuid4().hex[:12]}"]))

    async def __aenter__(self) -> "Segment":
        self._known = await asyncio.to_thread(self._load)
        return self

    async def __aexit__(self, *_: object) -> None:
        await self._journal.close()

    def get(self, request_id: str) -> Reply | None:
        """The reply that was stored for a request."""
        return self._known.get(request_id)

    async def put(self, reply: Reply) -> None:
        """Store a reply; returns once it is durable."""
        self._known[reply.request_id] = reply
        await self._journal.append(_ENCODE(vars(reply)))

    def _load(self) -> dict[str, Reply]:
        replies = filter(None, map(_reply, lines_of(self._folder, self._way, self._overlaps)))
        return {reply.request_id: reply for reply in replies}

    def _overlaps(self, name: str) -> bool:
        first, _, last = name.partition("-")
        return first <= self._last and last >= self._first


def read_segment(file: Place) -> list[Reply]:
    """The replies in a segment's file."""
    return list(filter(None, map(_reply, lines_in(file))))


def _reply(line: str) -> Reply | None:
    """The reply in a line. One that was cut by a crash was never durable."""
    try:
        return Reply(**json.loads(line))
    except (ValueError, TypeError):
        return None
