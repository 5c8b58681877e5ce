"""An answer that comes as server-sent events, put together to what it would be in one piece.

In: the lines of a response. Out: the body of a chat completion. Comments and blank lines, which providers and proxies send
to keep a connection open, are no part of an answer.
"""

import json
from typing import Any

DONE = "[DONE]"
TEXTS = ("content", "reasoning_content", "reasoning", "refusal")


class Assembly:
    """Takes lines as they come."""

    def __init__(self) -> None:
        self._parts: dict[str, list[str]] = {}
        self._rest: dict[str, Any] = {}
        self._choice: dict[str, Any] = {}

    def add(self, line: bytes) -> bool:
        """Take in a line; whether it brought something. Raises ValueError for one that is broken."""
        name, _, data = line.decode("utf-8", "replace").strip().partition(":")
        data = data.strip()
        if name != "data" or not data or data == DONE:
            return False
        chunk = json.loads(data)
        self._rest.update({key: value for key, value in chunk.items() if key != "choices" and value is not None})
        for choice in chunk.get("choices") or []:
            if choice.get("index"):
                continue  # of several answers the first
            delta = choice.get("delta") or choice.get("message") or {}
            for key in TEXTS:
                if delta.get(key):
                    self._parts.setdefault(key, []).append(delta[key])
            self._choice.update({key: choice[key] for key in ("finish_reason", "error") if choice.get(key)})
        return True

    def body(self) -> dict[str, Any]:
        """The whole completion. Raises ValueError where the stream ended before its answer did."""
        if "error" in self._rest:
            return self._rest
        if not self._choice:
            raise ValueError("the stream ended before the answer")
        message = {key: "".join(parts) for key, parts in self._parts.items()}
        return {**self._rest, "choices": [{**self._choice, "message": message}]}
