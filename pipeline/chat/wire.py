"""What an HTTP response of an OpenAI-compatible server means: a `Reply`, or a `Failure` that says what to do.

In: status, headers and body. A failure is asked again after a pause, is the row's own, or ends the run: `_meaning`. A
status of 200 is no promise: proxies send error bodies and broken JSON with it.
"""

import email.utils
import json
import math
import re
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import Any, Literal

from pipeline.chat.dispatch import Outcome
from pipeline.chat.limits import Signal
from pipeline.chat.reach import explain_refusal
from pipeline.chat.requests import Request
from pipeline.config import Endpoint
from pipeline.records import encodable
from pipeline.responses import Reply

ERROR_CHARS = 300

LIMITED = frozenset(["http_429", "http_503", "http_529"])
"""Too many requests, and a provider that is overloaded."""
CUT_OFF = frozenset(["http_408", "http_502", "http_504", *(f"http_{status}" for status in range(520, 528))])
"""A proxy gave up waiting: the model behind it may go on, and bill."""

Meaning = Literal["retry", "row", "end_of_route"]


@dataclass(frozen=True)
class Failure:
    """Why there is no reply: `kind` is what is counted, `meaning` what follows, `error` what a user reads."""

    kind: str
    meaning: Meaning
    error: str
    retry_after_s: float | None = None
    perhaps_billed: bool = False

    @property
    def outcome(self) -> Outcome:
        """What it means for limits and budget."""
        if self.meaning == "end_of_route":
            return "closed"
        if self.kind in LIMITED:
            return "limited"
        known = self.kind.startswith("http_") and not self.perhaps_billed and self.kind not in CUT_OFF
        return "failed" if known else "unknown"


class Reader:
    """Reads the responses of one endpoint."""

    def __init__(self, endpoint: Endpoint, key: str | None) -> None:
        self._endpoint, self._key = endpoint, key

    def read(
        self, request: Request, status: int, headers: Mapping[str, str], body: bytes, seconds: float
    ) -> Reply | Failure:
        """What a response to a request means."""
        if status != 200:
            return self._failure(status, _error_in(body), _retry_after(headers))
        return self.read_body(request, lambda: json.loads(body), seconds)

    def read_body(self, request: Request, body: Callable[[], Any], seconds: float) -> Reply | Failure:
        """What the body of a response means whose status says that all is well."""
        try:
            values = body()
            if values.get("error"):
                return replace(self._failure(_status_in(values["error"]), values["error"]), perhaps_billed=True)
            choices = values.get("choices") or []
            if not choices:
                return Failure("no_choices", "retry", "an answer without choices")
            broken = choices[0].get("error") or choices[0].get("finish_reason") == "error"
            if broken:  # OpenRouter's way to say that the provider behind it failed half-way
                return replace(self._failure(_status_in(broken), broken), perhaps_billed=True)
            return _parse(request, values, choices[0], seconds)
        except (ValueError, KeyError, TypeError, AttributeError, OverflowError, RecursionError) as error:
            what = f"{type(error).__name__}: {self.one_line(str(error))}"
            return Failure("malformed", "retry", f"a malformed answer ({what})")

    def failure(self, status: int, body: bytes) -> Failure:
        """What a response means that is no answer."""
        return self._failure(status, _error_in(body))

    def _failure(self, status: int, error: object, retry_after_s: float | None = None) -> Failure:
        message = self.one_line(_error_text(error))
        meaning = _meaning(status, message)
        text = f"HTTP {status}: {message}"
        if meaning == "end_of_route":
            text = explain_refusal(self._endpoint, status, message)
        return Failure(f"http_{status}", meaning, text, retry_after_s)

    def one_line(self, text: str) -> str:
        """What a server said, fit for a log and a table: without the key, which some servers repeat."""
        hidden = text.replace(self._key, "***") if self._key else text
        return encodable(" ".join(hidden.split())[:ERROR_CHARS])


_MODERATION = re.compile(r"moderation|flagged", re.IGNORECASE)


def _meaning(status: int, message: str) -> Meaning:
    if status == 403 and _MODERATION.search(message):
        return "row"  # OpenRouter's answer to one prompt that a provider's filter caught
    if status in (401, 402, 403, 404) or "insufficient_quota" in message:
        return "end_of_route"
    return "retry" if status in (408, 409, 425, 429) or status >= 500 else "row"


def _text(value: object) -> str:
    """A text of an answer. TypeError for anything else: it must not reach the store."""
    if not isinstance(value, str):
        raise TypeError(f"text expected, got {type(value).__name__}")
    return encodable(value)


def _parse(request: Request, values: dict[str, Any], choice: dict[str, Any], seconds: float) -> Reply:
    usage = values.get("usage") or {}
    message = choice.get("message") or {"content": choice.get("text")}
    refusal = message.get("refusal")
    content, thought = _parts(message.get("content"))
    text = _text(content or refusal or "")
    prompt, completion = int(usage.get("prompt_tokens") or 0), int(usage.get("completion_tokens") or 0)
    # Some count the thought in the total alone.
    completion = max(completion, int(usage.get("total_tokens") or 0) - prompt)
    reasoning = int((usage.get("completion_tokens_details") or {}).get("reasoning_tokens") or 0)
    cached = int((usage.get("prompt_tokens_details") or {}).get("cached_tokens") or 0)
    return Reply(
        request_id=request.request_id,
        text=text,
        reasoning=_text(message.get("reasoning_content") or message.get("reasoning") or thought) or None,
        finish_reason="refusal" if refusal else str(choice.get("finish_reason") or "stop"),
        prompt_tokens=prompt,
        cached_tokens=min(cached, prompt),
        completion_tokens=completion,
        reasoning_tokens=min(reasoning, completion),
        latency_s=round(seconds, 4),
        model=str(values.get("model") or request.body["model"]),
        prompt_token_ids=list(values.get("prompt_token_ids") or choice.get("prompt_token_ids") or []),
        token_ids=list(choice.get("token_ids") or []),
        token_ends=_token_ends(text, choice.get("logprobs") or {}),
    )


def _parts(content: object) -> tuple[object, str]:
    """Text and thought of an answer that comes in parts (Mistral); any other content as it is."""
    if not isinstance(content, list):
        return content, ""
    texts = "".join(_text(part["text"]) for part in content if part.get("type") == "text")
    inner = (piece for part in content if part.get("type") == "thinking" for piece in part["thinking"])
    return texts, "".join(_text(piece["text"]) for piece in inner if piece.get("type") == "text")


def _token_ends(text: str, logprobs: dict[str, Any]) -> list[int]:
    """How many characters of the text stand after each token; none where the tokens do not spell the text.

    A character whose bytes are spread over tokens stands after the last of them.
    """
    if "text_offset" in logprobs:  # of a completion
        starts = logprobs["text_offset"] if "".join(logprobs["tokens"]) == text else []
        return [start - starts[0] for start in starts[1:]] + [len(text)] * bool(starts)
    spelled = b""
    ends = []
    for token in logprobs.get("content") or []:
        spelled += bytes(token.get("bytes") or [])
        ends.append(min(len(spelled.decode("utf-8", "ignore")), len(text)))
    # A limit may fall inside a character: servers leave such an end out, or write it as U+FFFD.
    return ends if spelled.decode("utf-8", "ignore").startswith(text.rstrip("\ufffd")) else []


def _error_in(body: bytes) -> object:
    """The error that a body holds; its text where it is no JSON."""
    try:
        return json.loads(body)["error"]
    except (ValueError, KeyError, TypeError, RecursionError):
        return body.decode("utf-8", "replace")


def _error_text(error: object) -> str:
    return f"{error.get('message')} ({error.get('code')})" if isinstance(error, dict) else str(error)


def _status_in(error: object) -> int:
    """The HTTP status that an error inside of a 200 stands for; 502 where its code is no number."""
    code = error.get("code") if isinstance(error, dict) else None
    return code if isinstance(code, int) and code >= 400 else 502


LONGEST_RETRY_AFTER_S = 300.0


def _retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds to wait: `retry-after-ms` (OpenAI), `Retry-After` as seconds or as a date (RFC 9110)."""
    try:
        text = headers.get("Retry-After")
        if "retry-after-ms" in headers:
            seconds = float(headers["retry-after-ms"]) / 1000
        elif text is None:
            return None
        else:
            seconds = float(text)
    except ValueError:
        date = email.utils.parsedate_tz(headers.get("Retry-After"))
        if date is None:
            return None
        seconds = email.utils.mktime_tz(date) - time.time()
    return min(max(0.0, seconds), LONGEST_RETRY_AFTER_S)


_KINDS = {"requests": "requests", "tokens": "tokens", "input-tokens": "input_tokens", "output-tokens": "output_tokens"}
_DURATION = re.compile(r"(\d+(?:\.\d+)?)(ms|s|m|h|d)")
_SECONDS = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0}
_PERIODS_S = (1.0, 60.0, 3600.0, 86400.0)


def signals_in(headers: Mapping[str, str]) -> dict[str, Signal]:
    """What the headers say of limits: `x-ratelimit-remaining-tokens` (OpenAI), `anthropic-ratelimit-tokens-remaining`."""
    found: dict[str, Signal] = {}
    if not any("ratelimit" in name for name in headers):
        return found
    for name, kind in _KINDS.items():
        said = [
            headers.get(f"x-ratelimit-{what}-{name}") or headers.get(f"anthropic-ratelimit-{name}-{what}")
            for what in ("limit", "remaining")
        ]
        try:
            limit, remaining = (float(each) for each in said if each is not None)
        except ValueError:
            continue
        if limit > 0:
            reset = headers.get(f"x-ratelimit-reset-{name}") or ""
            found[kind] = Signal(limit, remaining, _period_s(limit, remaining, reset))
    return found


def _period_s(limit: float, remaining: float, reset: str) -> float:
    """The time in which a limit fills anew, from the time until it is full; a minute where that does not tell.

    "6m0s" at 10 of 100 left: 100 in 400 s, so they come in a minute or an hour: the nearest by ratio.
    """
    seconds = sum(float(number) * _SECONDS[unit] for number, unit in _DURATION.findall(reset))
    used = 1 - remaining / limit
    if not seconds or used < 0.001:
        return 60.0
    return min(_PERIODS_S, key=lambda period: abs(math.log(period / (seconds / used))))
