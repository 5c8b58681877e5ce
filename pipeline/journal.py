"""Lines that survive a crash: of the process, and on a local disk of the machine.

In: lines of text from one writer. Out: the lines of all writers, after any crash. Lines that come together are written
together. On a local disk a journal is one file that grows. On object storage it is an object for each flush, for objects
cannot grow; until that is written its lines lie in a file on the node's own disk too, so that a killed process loses none.
"""

import asyncio
import fcntl
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from hashlib import sha256
from io import FileIO
from itertools import accumulate
from operator import truediv
from pathlib import Path

from pipeline.errors import DataError
from pipeline.storage import Place

FLUSH_S = 2.0
"""Object storage: the most a lost node can cost, against one PUT for each journal in this time."""
LOCAL_FLUSH_S = 0.02
"""Local disk: lines that come within this time share one fsync."""


class Journal:
    """A writer's journal in a folder. Its `name` is its own; what stands before a dot tells what it holds, slashes make folders."""

    def __init__(self, folder: Place, name: str, flush_s: float = FLUSH_S) -> None:
        self._folder, self._name = folder, name
        self._flush_s = LOCAL_FLUSH_S if folder.is_local else flush_s
        self._pending: list[str] = []
        self._written: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        self._writer: asyncio.Task[None] | None = None
        self._file: FileIO | None = None
        """On a local disk the journal; else what is pending, on the node's disk."""
        self._parts = self._kept = 0

    async def append(self, line: str) -> None:
        """Write a line; returns once it is durable."""
        self._pending.append(line)
        if not self._folder.is_local:
            self._keep_here(line)
        if self._writer is None or self._writer.done():
            self._writer = asyncio.create_task(self._write_pending())
        await asyncio.shield(self._written)

    async def close(self) -> None:
        """Write what is pending."""
        if self._writer is not None:
            await self._writer
        self._close()

    async def _write_pending(self) -> None:
        while self._pending:
            await asyncio.sleep(self._flush_s)
            lines, self._pending = self._pending, []
            written, self._written = self._written, asyncio.get_running_loop().create_future()
            data = ("\n".join(lines) + "\n").encode()
            kept = None
            if not self._folder.is_local:
                kept, self._file = self._file, None
            try:
                await asyncio.to_thread(self._write_local if self._folder.is_local else self._next_part().write, data)
            except Exception as error:
                written.set_exception(error)
            else:
                written.set_result(None)
                if kept is not None:
                    Path(os.fsdecode(kept.name)).unlink(missing_ok=True)
            if kept is not None:
                kept.close()

    def _write_local(self, data: bytes) -> None:
        try:
            if self._file is None:
                self._file = _opened(Path(self._next_part().path))
            rest = memoryview(data)
            while rest:
                rest = rest[self._file.write(rest) :]
            os.fsync(self._file.fileno())
        except OSError as error:  # half a line may stand there now: what comes next goes into a file of its own
            self._close()
            raise _full(self._folder.uri, error) from error

    def _keep_here(self, line: str) -> None:
        """On the node's disk, for the case that this process is killed before the line's object is written."""
        try:
            if self._file is None:
                self._kept += 1
                _folder_here(self._folder).mkdir(parents=True, exist_ok=True, mode=0o700)  # parents get other rights
                self._file = _opened(_folder_here(self._folder) / f"{self._name}.{self._kept:06d}.jsonl")
                fcntl.flock(self._file, fcntl.LOCK_EX)
            self._file.write(f"{line}\n".encode())
        except OSError as error:
            raise _full(str(_folder_here(self._folder)), error) from error

    def _next_part(self) -> Place:
        self._parts += 1
        return self._folder / f"{self._name}.{self._parts:06d}.jsonl"

    def _close(self) -> None:
        if self._file is not None:
            self._file.close()
            self._file = None


def _full(where: str, error: OSError) -> DataError:
    return DataError(f"cannot store answers in {where!r}: {error.strerror}: free some space")


def lines_of(folder: Place, way: Sequence[str] = (), wanted: Callable[[str], bool] | None = None) -> Iterator[str]:
    """The lines of the journals on the `way` from folder to folder and below its end, of those whose name is wanted.

    A last line that a crash cut was never durable: expect it.
    """
    if not folder.is_local:
        _bring_what_was_kept(folder)
    *passed, end = accumulate(way, truediv, initial=folder)
    files = [file for each in passed for file in each.files(".jsonl", below=False)]
    for file in [*files, *end.files(".jsonl")]:
        if wanted is None or wanted(file.name.partition(".")[0]):
            yield from lines_in(file)


def lines_in(file: Place) -> list[str]:
    """The lines in a journal's file, the cut one too."""
    return file.read().decode("utf-8", "replace").split("\n")


def _bring_what_was_kept(folder: Place) -> None:
    """Store what killed writers of this node left on its disk. A living one holds the lock of its file."""
    here = _folder_here(folder)
    if not any(here.rglob("*.jsonl")):
        return
    with (here / "lock").open("wb") as one_at_a_time:  # who comes second finds all of it stored
        fcntl.flock(one_at_a_time, fcntl.LOCK_EX)
        for path in sorted(here.rglob("*.jsonl")):
            with suppress(BlockingIOError, FileNotFoundError), path.open("rb") as file:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                (folder / f"{path.relative_to(here).with_suffix('')}.kept.jsonl").write(file.read())
                path.unlink()


def _folder_here(folder: Place) -> Path:
    name = sha256(f"{folder.endpoint} {folder.uri}".encode()).hexdigest()[:16]
    return Path(tempfile.gettempdir()) / f"longthought-{os.getuid()}" / name


def _opened(path: Path) -> FileIO:
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    return path.open("ab", buffering=0)
