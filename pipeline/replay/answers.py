"""A recorded answer as a chat completion, whole or as a stream, cut at the limit that was asked for."""

import json
import random
import time
from collections.abc import Mapping
from typing import Any

from aiohttp import web

from pipeline.replay.recordings import Recorded

STREAM_PIECE_CHARS = 24


def limited(recorded: Recorded, limit: int | None) -> Recorded:
    """The answer, cut where it is longer than the limit in tokens."""
    if limit is None or recorded.completion_tokens <= limit:
        return recorded
    share = limit / recorded.completion_tokens
    text = (recorded.reasoning or "") + recorded.content
    cut = int(len(text) * share)
    thought = len(recorded.reasoning or "")
    return Recorded(text[thought:cut] if cut > thought else "", text[: min(cut, thought)] or None, "length", limit)


def as_fault(recorded: Recorded, fault: str | None) -> Recorded:
    """The answer as a fault leaves it."""
    if fault == "empty":
        return Recorded("", None, "stop", 0)
    if fault == "length":
        return limited(recorded, max(1, recorded.completion_tokens // 2))
    return recorded


def completion(model: str, answer: Recorded, prompt_tokens: int) -> dict[str, Any]:
    """The body of a response."""
    message: dict[str, Any] = {"role": "assistant", "content": answer.content}
    if answer.reasoning:
        message["reasoning_content"] = answer.reasoning
    return {
        "id": f"chatcmpl-{random.getrandbits(64):016x}",
        "object": "chat.completion",
        "created": int(time.time()),
        "model": model,
        "choices": [{"index": 0, "message": message, "finish_reason": answer.finish_reason, "logprobs": None}],
        "usage": {
            "prompt_tokens": prompt_tokens,
            "completion_tokens": answer.completion_tokens,
            "total_tokens": prompt_tokens + answer.completion_tokens,
        },
    }


async def stream(request: web.Request, completion: dict[str, Any], headers: Mapping[str, str]) -> web.StreamResponse:
    """The same answer as server-sent events: the thought first, then the text, the usage in the last chunk."""
    response = web.StreamResponse(headers={"Content-Type": "text/event-stream", **headers})
    await response.prepare(request)
    choice = completion["choices"][0]
    head = {name: completion[name] for name in ("id", "created", "model")} | {"object": "chat.completion.chunk"}

    async def send(delta: dict[str, Any], finish: str | None = None, **more: Any) -> None:
        chunk = {**head, "choices": [{"index": 0, "delta": delta, "finish_reason": finish}], **more}
        await response.write(f"data: {json.dumps(chunk)}\n\n".encode())

    await send({"role": "assistant", "content": ""})
    for name in ("reasoning_content", "content"):
        text = choice["message"].get(name) or ""
        for start in range(0, len(text), STREAM_PIECE_CHARS):
            await send({name: text[start : start + STREAM_PIECE_CHARS]})
    await send({}, choice["finish_reason"], usage=completion["usage"])
    await response.write(b"data: [DONE]\n\n")
    return response
