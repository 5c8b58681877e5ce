"""How a run ends when it is asked to: by `ray job stop` (SIGTERM) or Ctrl-C.

What is paid for or trained comes to its end first: answers under way are stored, a training writes a checkpoint. Whoever can end
so says how (`ends_by`); all else is interrupted at once, for it loses nothing that was paid for. A second signal ends at once.
"""

import os
import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

from pipeline.errors import StoppedError

_enders: list[Callable[[], None]] = []
_asked: list[int] = []
"""The signals that came."""
root_is_ours = True
"""False once another run may have taken it over."""


def listen() -> None:
    """Take the signals. Ray takes them, too: to be called again after what does."""
    if threading.current_thread() is threading.main_thread():
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, _stop)


@contextmanager
def ends_by(end: Callable[[], None] | None) -> Iterator[None]:
    """In the block a stop calls `end`, in a thread: the block is expected to come to an end by itself then. None: at once."""
    if end is None:
        yield
        return
    _enders.append(end)
    try:
        yield
    finally:
        _enders.remove(end)
    check()


def asked() -> bool:
    """Whether an end was asked for."""
    return bool(_asked)


def check() -> None:
    """Raises StoppedError where an end was asked for."""
    if asked():
        raise StoppedError


def root_lost() -> None:
    """Another run may work in the root: the next signal ends all at once, whatever is under way, and nothing more is written there."""
    global root_is_ours
    root_is_ours = False
    _asked.append(signal.SIGINT)


def _stop(number: int, frame: FrameType | None) -> None:
    del frame
    _asked.append(number)
    if len(_asked) > 1 or not _enders:
        raise KeyboardInterrupt
    os.write(2, b"stopping: what is under way comes to its end and is kept; a second signal ends at once\n")
    for end in _enders:  # not here: the signal may have come in the middle of a call to Ray
        threading.Thread(target=end, name="stopping", daemon=True).start()
