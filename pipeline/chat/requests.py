"""What is asked, named by what decides its answer.

In: an endpoint's settings, messages or token ids. Out: `Request`s, whose `request_id` is the key of the response store.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from pipeline.chat.budget import Usage
from pipeline.config import Endpoint
from pipeline.records import Message, digest

Path = Literal["chat/completions", "completions"]


@dataclass(frozen=True)
class Request:
    """One request. `request_id` names its answer: the same question to the same model, the same sample."""

    request_id: str
    path: Path
    body: dict[str, Any]


def chat_request(endpoint: Endpoint, messages: Sequence[Message], sample_index: int) -> Request:
    """A question to a model. Samples of one question differ in `sample_index`, which is sent as the seed."""
    sampling = endpoint.sampling
    body = {"model": endpoint.model, "messages": [vars(message) for message in messages], **sampling.extra}
    body[endpoint.token_limit_field] = sampling.max_tokens
    return _sampled(endpoint, "chat/completions", body, sample_index)


def completion_request(model: str, prompt: list[int] | str, max_tokens: int, **sampling: Any) -> Request:
    """A continuation of token ids, or of a text."""
    body = {"model": model, "prompt": prompt, "max_tokens": max_tokens, **sampling}
    return Request(digest(body), "completions", body)


def continuation(endpoint: Endpoint, prompt: list[int], max_tokens: int, sample_index: int, **more: Any) -> Request:
    """A continuation of token ids, sampled as the endpoint's answers are."""
    body = {"model": endpoint.model, "prompt": prompt, "max_tokens": max_tokens, **more}
    return _sampled(endpoint, "completions", body, sample_index)


def _sampled(endpoint: Endpoint, path: Path, body: dict[str, Any], sample_index: int) -> Request:
    """The request, with how the endpoint samples in its body."""
    sampling = endpoint.sampling
    body |= {name: value for name in ("temperature", "top_p") if (value := getattr(sampling, name)) is not None}
    identity = digest(body, sample_index)
    if endpoint.send_seed:
        body["seed"] = sample_index
    return Request(identity, path, body)


TEMPLATE_TOKENS, TURN_TOKENS = 64, 16
"""What a chat template adds to a conversation and to each turn of it, at most."""


def most_usage(request: Request) -> Usage:
    """The most tokens that a request can use. No token is shorter than a byte."""
    limit = int(request.body.get("max_completion_tokens") or request.body["max_tokens"])
    turns, prompt = request.body.get("messages"), request.body.get("prompt")
    more = [
        value
        for name, value in request.body.items()
        if isinstance(value, (dict, list)) and name not in ("messages", "prompt")
    ]
    if turns is None:
        size = len(prompt) if isinstance(prompt, list) else len(str(prompt).encode("utf-8", "replace"))
    else:
        size = sum(len(str(turn["content"]).encode("utf-8", "replace")) + TURN_TOKENS for turn in turns)
    if more:  # tools and schemas become part of the prompt
        size += len(json.dumps(more))
    return Usage(size + TEMPLATE_TOKENS, limit * int(request.body.get("n") or 1))
