"""What came of a request: an `Outcome`, the `Trace` it makes, and what it cost.

However a provider sends the thought (a field of its own, `<think>` in the text), a trace has it apart from the answer.
"""

from dataclasses import dataclass

from pipeline.chat.budget import Usage
from pipeline.chat.requests import Request
from pipeline.config import Price
from pipeline.prompts import split_thought, transcript
from pipeline.records import Message, Method, Trace, TraceStatus, digest
from pipeline.responses import Reply


@dataclass(frozen=True)
class Outcome:
    """A reply, or why there is none. `stored`: it was there already and cost nothing now."""

    reply: Reply | None
    error: str | None = None
    stored: bool = False


def usage_of(reply: Reply) -> Usage | None:
    """The tokens of a reply; None where its endpoint does not tell them, or only some."""
    said_something = reply.text or reply.reasoning
    if not reply.prompt_tokens or (said_something and not reply.completion_tokens):
        return None
    return _told(reply)


def _told(reply: Reply) -> Usage:
    return Usage(reply.prompt_tokens, reply.completion_tokens, reply.cached_tokens, reply.reasoning_tokens)


def cost_usd(reply: Reply, price: Price) -> float:
    """What a reply cost by the tokens that it tells, in US dollars."""
    return _told(reply).cost(price).usd


def status_of(reply: Reply) -> TraceStatus:
    """How an answer ended."""
    if reply.finish_reason == "length":
        return "truncated"
    return "refused" if reply.finish_reason in ("content_filter", "refusal") else "ok"


def to_trace(
    outcome: Outcome, request: Request, problem_id: str, sample_index: int, method: Method, price: Price
) -> Trace:
    """The trace of a chat request: the thought apart from the answer, whichever way the provider sent it."""
    reply = outcome.reply
    inline, text = split_thought(reply.text) if reply else (None, "")
    return Trace(
        trace_id=digest(problem_id, method, request.request_id),
        request_id=request.request_id,
        problem_id=problem_id,
        sample_index=sample_index,
        method=method,
        prompt=transcript([Message(**turn) for turn in request.body["messages"]]),
        response=text,
        reasoning=(reply.reasoning or inline) if reply else None,
        status=status_of(reply) if reply else "failed",
        error=outcome.error,
        prompt_tokens=reply.prompt_tokens if reply else 0,
        completion_tokens=reply.completion_tokens if reply else 0,
        cost_usd=cost_usd(reply, price) if reply else 0.0,
        latency_s=reply.latency_s if reply else 0.0,
        model=request.body["model"],
    )
