"""Recorded answers, by model and problem.

In: recorded traces, as JSONL (or a run's own Parquet table of traces). A row has `problem` (or `prompt`, all that was
asked), `content`, and optionally `model`, `reasoning_content`, `finish_reason` and `completion_tokens`. Rows with the
same model and problem are its successive samples.
"""

import json
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from pipeline.errors import DataError
from pipeline.prompts import transcript
from pipeline.records import Message, normalized
from pipeline.storage import Place, iter_dicts

CHARS_PER_TOKEN = 4
"""For the usage of answers recorded without one."""
FINISH = {"truncated": "length", "refused": "content_filter"}
"""The finish reason of a trace's status."""


@dataclass(frozen=True)
class Recorded:
    """One recorded answer."""

    content: str
    reasoning: str | None
    finish_reason: str
    completion_tokens: int


class Recordings:
    """Recorded answers by model and problem."""

    def __init__(self) -> None:
        self._answers: dict[tuple[str, str], list[Recorded]] = defaultdict(list)
        self.models: dict[str, None] = {}

    def add(self, row: dict[str, Any]) -> None:
        """Take a row in; raises KeyError for one without a question or an answer. A failed request has no answer."""
        if row.get("status") == "failed":
            return
        question = row["problem"] if row.get("problem") is not None else row["prompt"]
        content = row["content"] if row.get("content") is not None else row["response"]
        reasoning = row.get("reasoning_content") or row.get("reasoning")
        tokens = row.get("completion_tokens") or len(content + (reasoning or "")) // CHARS_PER_TOKEN + 1
        finish = row.get("finish_reason") or FINISH.get(row.get("status") or "ok", "stop")
        model = row.get("model") or "replay"
        self.models[model] = None
        self._answers[model, normalized(question)].append(Recorded(content, reasoning, finish, tokens))

    def find(self, model: str, messages: Sequence[Message]) -> list[Recorded]:
        """The samples of a conversation: recorded as a whole, or of the problem that its latest turns ask."""
        whole = self._answers.get((model, normalized(transcript(messages))))
        turns = (message.content for message in reversed(messages) if message.role == "user")
        return whole or next(filter(None, (self._asked_in(model, turn) for turn in turns)), [])

    def _asked_in(self, model: str, message: str) -> list[Recorded]:
        """The samples of the problem that a message asks: the whole message, or a run of its paragraphs."""
        paragraphs = [normalized(paragraph) for paragraph in message.split("\n\n")]
        for length in range(len(paragraphs), 0, -1):
            for start in range(len(paragraphs) - length + 1):
                found = self._answers.get((model, " ".join(paragraphs[start : start + length])))
                if found:
                    return found
        return []

    def __len__(self) -> int:
        return sum(map(len, self._answers.values()))


def load_recordings(uri: str) -> Recordings:
    """Recordings of a `.jsonl` file or a Parquet table. Raises DataError for what is neither."""
    place = Place(uri)
    if not place.exists():
        raise DataError(f"no recorded traces at {uri!r}: give a .jsonl file or a folder of Parquet")
    recordings = Recordings()
    for where, row in _rows(place):
        try:
            recordings.add(row)
        except (KeyError, TypeError, AttributeError):
            raise DataError(f"{where} has no problem (or prompt) with a content (or response): add them") from None
    if not len(recordings):
        raise DataError(f"{uri!r} holds no recorded traces")
    return recordings


def _rows(place: Place) -> Iterator[tuple[str, dict[str, Any]]]:
    if not place.uri.endswith(".jsonl"):
        for index, row in enumerate(iter_dicts(place)):
            yield f"row {index} of {place.uri}", row
        return
    for number, line in enumerate(place.read().splitlines(), 1):
        if line.strip():
            try:
                yield f"{place.uri}:{number}", json.loads(line)
            except ValueError as error:
                raise DataError(f"{place.uri}:{number} is no JSON: {error}") from None
