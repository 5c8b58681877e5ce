"""One run at a time in a root: whoever works there holds it, and says so in `hold.json`.

In: a root. Out: a context in which it is held; ResourceError where another run holds it. On a local disk it is a lock of the
operating system, gone with its process. In object storage it is a file that is written by conditional requests only (create it,
replace this very version) and renewed while the run lasts. Whoever finds one watches it, and takes it over where nobody renews
it: clocks are not compared.
"""

import contextlib
import json
import os
import signal
import socket
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from filelock import FileLock, Timeout

from pipeline.errors import DataError, ResourceError
from pipeline.storage import bucket
from pipeline.storage.place import NamedErrors, Place

NAME = "hold.json"
CONDITIONAL = ("s3://", "gs://", "az://", "abfs://", "abfss://")
"""Storage that knows conditional requests."""
RENEW_S = 10.0
ANSWER_S = 10.0
"""Longest wait for an answer: there is time for several tries before others may take the hold for stale."""
TRIES = 3
"""To write a hold at the begin of a run."""
STALE_S = 120.0
"""A hold that was not renewed for so long is that of a run that ended without a word. A run survives a minute of storage's silence."""
GCS_STALE_S = 300.0
"""The same in Google's storage: where that does not answer, pyarrow may stop all of a process for two minutes."""


@contextlib.contextmanager
def held(root: Place, lost: Callable[[], None] = lambda: None) -> Iterator[None]:
    """Hold the root. Raises ResourceError where another run does, and where it was lost to one: then `lost` is called, in a thread,
    and the main thread interrupted.
    """
    hold: contextlib.AbstractContextManager[None]
    if root.is_local:
        hold = _held_on_disk(root)
    elif root.uri.startswith(CONDITIONAL):
        hold = _held_in_bucket(root, lost)
    else:
        print(f"{root.uri} cannot be held: let no other run work there", flush=True)
        hold = contextlib.nullcontext()
    with hold:
        yield


def confirm(root: Place) -> None:
    """Renew this process's hold on the root now, if it has one: before a stage is called complete.

    Raises ResourceError where another run took it over, as it may while all of this process's machine stands still.
    """
    if hold := _bucket_holds.get(root):
        hold.confirm()


def _who() -> str:
    job = os.environ.get("RAY_JOB_SUBMISSION_ID")
    command = f"job {job}" if job else " ".join(sys.argv[1:2])  # no more: other arguments may tell secrets
    return (
        f"{command!r} on {socket.gethostname()} (process {os.getpid()}), since {time.strftime('%Y-%m-%d %H:%M:%S %Z')}"
    )


def _refusal(root: Place, who: str) -> ResourceError:
    return ResourceError(f"{root.uri} is held by another run: {who}: wait for its end, or use another storage.root")


@contextlib.contextmanager
def _held_on_disk(root: Place) -> Iterator[None]:
    note = root / NAME
    root.make_folder()
    lock = FileLock((root / ".hold.lock").path)
    with NamedErrors(root), contextlib.suppress(Timeout):
        lock.acquire(timeout=0)
    if not lock.is_locked:
        raise _refusal(root, json.loads(note.read())["holder"] if note.exists() else "it has just begun")
    try:
        note.write(json.dumps({"holder": _who()}).encode())
        yield
    finally:
        note.delete()
        lock.release()


@contextlib.contextmanager
def _held_in_bucket(root: Place, lost: Callable[[], None]) -> Iterator[None]:
    hold = _Hold(root, lost)
    hold.take()
    _bucket_holds[root] = hold
    try:
        yield
    except BaseException:
        hold.require()  # whatever ended it then
        raise
    finally:
        del _bucket_holds[root]
        hold.release()


class _Hold:
    """The file in object storage, and the thread that renews it."""

    def __init__(self, root: Place, when_lost: Callable[[], None]) -> None:
        self._lost = ""
        """What became of it, where it is not ours any more."""
        self._when_lost = when_lost
        self._stale_s = GCS_STALE_S if root.uri.startswith("gs://") else STALE_S
        self._file = _File(root)
        self._content = {"holder": _who(), "owner": uuid.uuid4().hex}
        self._version: Any = None
        self._renewed_at = 0.0
        self._renewing = threading.Lock()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, name="hold", daemon=True)

    def take(self) -> None:
        """Raises ResourceError where another run holds the root."""
        found = self._file.read()
        if found is not None and not found.released:
            found = self._watched(found)
        asked = time.monotonic()
        self._version = self._written(found.version if found else None)
        if self._version is None:
            now = self._file.read()
            raise _refusal(self._file.root, now.holder if now else "it has just begun")
        self._renewed_at = asked
        self._thread.start()

    def _watched(self, found: "_Found") -> "_Found":
        """The same file, where nobody renews it."""
        started, told = time.monotonic(), False
        while (silent_s := time.monotonic() - started) < self._stale_s:
            if silent_s > 1.5 * RENEW_S and not told:  # a run that lives would have said so
                told = True
                left = f"{self._stale_s - silent_s:.0f} s more for a sign of life"
                print(f"{self._file.root.uri} is held by {found.holder}: waiting {left}", flush=True)
            time.sleep(RENEW_S / 5)
            now = self._file.read()
            if now is not None and now.released:
                return now
            if now is None or now.version != found.version:
                raise _refusal(self._file.root, now.holder if now else found.holder)
        print(f"taking over: {found.holder} gives none", flush=True)
        return found

    def _written(self, replacing: Any) -> Any:
        """Tried again where no answer comes in time: the client does so with reads alone."""
        for _ in range(TRIES - 1):
            with contextlib.suppress(DataError):
                return self._file.write(self._content, replacing=replacing)
        return self._file.write(self._content, replacing=replacing)

    def require(self) -> None:
        """Raises ResourceError where it is not ours any more."""
        if self._lost:
            raise ResourceError(f"{self._file.root.uri} {self._lost}: this one ends")

    def confirm(self) -> None:
        """`require`, once storage took a renewal or the hold is lost."""
        while not self._renewal():
            self.require()
            time.sleep(RENEW_S / 10)
        self.require()

    def _renewal(self) -> bool:
        """Whether storage took one. Ours it is for as long as the next try, repeated for a while, ends before others may take it for stale."""
        with self._renewing:
            if self._lost:
                return False
            asked = time.monotonic()
            try:
                self._version = self._file.write(self._content, replacing=self._version)
            except Exception:  # whatever it is: a run that does not know of its loss would write into another's root
                silence = time.monotonic() - self._renewed_at
                if silence + RENEW_S / 10 + 2 * ANSWER_S > self._stale_s:
                    self._lost = (
                        f"is not held any more: storage took no renewal for {silence:.0f} s, and another run may come"
                    )
                return False
            self._renewed_at = asked
            if self._version is None:
                self._lost = "was taken over by another run while this one could not renew its hold"
            return True

    def _renew(self) -> None:
        pause = RENEW_S
        while not self._ended.wait(pause):
            pause = RENEW_S if self._renewal() else RENEW_S / 10
            if self._lost:
                self._when_lost()
                signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGINT)
                return

    def release(self) -> None:
        """Let others begin at once. Conditional, like all that is written: a hold that is lost stays the other's."""
        self._ended.set()
        self._thread.join()
        if not self._lost:
            with contextlib.suppress(DataError):  # the next run waits until it is stale
                self._file.write({**self._content, "released": True}, replacing=self._version)


_bucket_holds: dict[Place, _Hold] = {}
"""Those of this process, by their roots."""


@dataclass(frozen=True)
class _Found:
    version: Any
    holder: str
    owner: str
    released: bool


def _version_of(told: Any) -> dict[str, str]:
    return {name: told[name] for name in ("e_tag", "version") if told[name] is not None}


class _File:
    """`hold.json`, read with its version and written on conditions, which pyarrow's filesystems do not know."""

    def __init__(self, root: Place) -> None:
        self.root = root
        self._store, folder = bucket.opened(root, ANSWER_S, ANSWER_S)
        self._name = f"{folder.rstrip('/')}/{NAME}".lstrip("/")

    def read(self) -> _Found | None:
        """None where there is none."""
        import obstore

        with bucket.named_errors(self.root):
            try:
                got = obstore.get(self._store, self._name)
            except FileNotFoundError:
                return None
            content = json.loads(bytes(got.bytes()))
            return _Found(
                _version_of(got.meta),
                content.get("holder", "another run"),
                content.get("owner", ""),
                bool(content.get("released")),
            )

    def write(self, content: dict[str, Any], *, replacing: Any) -> Any:
        """The version that is there now; None where another owner's has come in between. `replacing` None: there must be none.

        Raises DataError where no answer came: then it may be written or not, and the same may be tried again.
        """
        import obstore
        from obstore.exceptions import AlreadyExistsError, PreconditionError

        data = json.dumps({**content, "renewal": uuid.uuid4().hex}).encode()  # e-tags may be hashes of the content
        with bucket.named_errors(self.root):
            while True:
                try:
                    mode: Any = "create" if replacing is None else replacing
                    return _version_of(obstore.put(self._store, self._name, data, mode=mode))
                except (AlreadyExistsError, PreconditionError):
                    found = self.read()
                    if found is None or found.owner != content.get("owner"):
                        return None
                    replacing = found.version  # an answer was lost: this is what the request before wrote
