"""What happens, for machines: a line of JSON for each event, with the run, the stage and the row that it is about.

In: events, from wherever they happen. Out: lines in the file that this process was given (`to_file`); without one they go nowhere.

    {"time": "2026-11-22T20:15:02.120+00:00", "level": "WARNING", "event": "asked again", "run": "s3://bucket/run",
     "stage": "distill", "row": "7d0f…", "process": 4711, "request": "81c2…", "error": "HTTP 503: overloaded"}

Events are what a person looks for afterwards: what was tried again, given up, saved, interrupted. What becomes of each row is in the
tables, and how many of what are in the metrics.
"""

import json
import logging
import os
from collections.abc import Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from datetime import UTC, datetime
from pathlib import Path

MOST_CHARS = 1000
"""Of a value: a line stays short enough to be written at once, so that processes can share a file."""

_logger = logging.getLogger("longthought")
_logger.setLevel(logging.INFO)
_logger.propagate = False
_logger.addHandler(logging.NullHandler())

_ids: ContextVar[dict[str, str]] = ContextVar("ids")


@contextmanager
def about(**ids: str) -> Iterator[None]:
    """Events of the block, and of asyncio tasks that are started in it, carry these: `run`, `stage`, `row`."""
    token = _ids.set({**_ids.get({}), **ids})
    try:
        yield
    finally:
        _ids.reset(token)


def ids() -> dict[str, str]:
    """What events carry here."""
    return dict(_ids.get({}))


def note(event: str, **facts: object) -> None:
    """Something went as it should."""
    _logger.info(event, extra={"facts": facts})


def warn(event: str, **facts: object) -> None:
    """Something did not, and was borne."""
    _logger.warning(event, extra={"facts": facts})


def to_file(path: Path, **ids: str) -> None:
    """Append this process's events to a file, which may be shared. They carry these ids, where nothing nearer says others."""
    for old in [each for each in _logger.handlers if isinstance(each, logging.FileHandler)]:
        _logger.removeHandler(old)
        old.close()
    handler = logging.FileHandler(path, delay=True)
    handler.setFormatter(_Lines(ids))
    _logger.addHandler(handler)


class _Lines(logging.Formatter):
    def __init__(self, ids: dict[str, str]) -> None:
        super().__init__()
        self._ids = ids

    def format(self, record: logging.LogRecord) -> str:
        time = datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds")
        said = {"time": time, "level": record.levelname, "event": record.getMessage(), **self._ids, **_ids.get({})}
        facts: dict[str, object] = {"process": os.getpid(), **getattr(record, "facts", {})}
        short = {name: value[:MOST_CHARS] if isinstance(value, str) else value for name, value in facts.items()}
        return json.dumps({**said, **short}, default=str)
