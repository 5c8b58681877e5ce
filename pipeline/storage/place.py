"""One URI, and what can be done with the file or folder there.

In: a URI and, for an S3 service that is not AWS, its endpoint. Out: `Place`. Its failures are `DataError`s that name the place
and the mending.
"""

import functools
import hashlib
import io
import os
import re
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path

import pyarrow as pa
import pyarrow.fs

from pipeline import hub
from pipeline.errors import DataError, first_line
from pipeline.storage import gcs, s3

_PIECE = 1 << 20


@dataclass(frozen=True)
class Place:
    """One URI. Picklable: every process opens its own connection. `endpoint` as in `config.Storage`."""

    uri: str
    endpoint: str | None = None

    def __truediv__(self, name: str) -> "Place":
        return Place(f"{self.uri.rstrip('/')}/{name}", self.endpoint)

    def __str__(self) -> str:
        return self.uri

    @property
    def name(self) -> str:
        """The last part of the path."""
        return self.path.rstrip("/").rsplit("/", 1)[-1]

    @property
    def is_local(self) -> bool:
        """On this machine's own disk."""
        return "://" not in self.uri or self.uri.startswith("file://")

    @property
    def filesystem(self) -> pyarrow.fs.FileSystem:
        """The filesystem that holds the URI."""
        with NamedErrors(self):
            return _resolve(self.uri, self.endpoint)[0]

    @property
    def path(self) -> str:
        """The path inside `filesystem`."""
        with NamedErrors(self):
            return _resolve(self.uri, self.endpoint)[1]

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        with NamedErrors(self):
            return bool(self.filesystem.get_file_info(self.path).type != pyarrow.fs.FileType.NotFound)

    def is_folder(self) -> bool:
        """Whether there is a folder."""
        with NamedErrors(self):
            return bool(self.filesystem.get_file_info(self.path).type == pyarrow.fs.FileType.Directory)

    def files(self, suffix: str = "", *, below: bool = True) -> list["Place"]:
        """All files in the folder, and `below` those in its folders too, in the order of their paths; none when it does not exist."""
        selector = pyarrow.fs.FileSelector(self.path, recursive=below, allow_not_found=True)
        with NamedErrors(self):
            infos = self.filesystem.get_file_info(selector)
        root = self.path.strip("/")  # fsspec's filesystems begin paths with a slash, whatever they were asked
        inside = (i.path.strip("/").removeprefix(root).lstrip("/") for i in infos if i.type == pyarrow.fs.FileType.File)
        return [self / path for path in sorted(inside) if path.endswith(suffix)]

    def read(self) -> bytes:
        """The file's bytes, unpacked where the name ends in `.gz` or `.zst`."""
        with NamedErrors(self), self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def lines(self, longest: int) -> Iterator[bytes]:
        """The file's lines with their ends, one at a time, unpacked where the name ends in `.gz` or `.zst`.

        Of a line of more than `longest` bytes, `longest` + 1 come.
        """
        with NamedErrors(self), self.filesystem.open_input_stream(self.path) as stream:
            reader = io.BufferedReader(stream, _PIECE)
            while line := reader.readline(longest + 1):
                yield line
                ended = len(line) <= longest or line.endswith(b"\n")
                while not ended:
                    rest = reader.readline(_PIECE)
                    ended = not rest or rest.endswith(b"\n")

    def content_hash(self) -> str:
        """A hash of the file's bytes; on the hub the commit, which stands for them unread."""
        if pinned := hub.repository_and_commit(self.uri):
            return pinned[1]
        found = hashlib.sha256()
        with NamedErrors(self), self.filesystem.open_input_stream(self.path) as stream:
            while piece := stream.read(1 << 22):
                found.update(piece)
        return found.hexdigest()[:16]

    def write(self, data: bytes) -> None:
        """Write the file whole or not at all, and durably; as it is, whatever its name."""
        with NamedErrors(self):
            if self.is_local:
                _write_local(Path(self.path), data)
                return
            with self.filesystem.open_output_stream(self.path, compression=None) as stream:
                stream.write(data)

    def delete(self) -> None:
        """Remove the file, or the folder with all it holds; nothing when there is none."""
        with NamedErrors(self), suppress(FileNotFoundError):
            if self.is_folder():
                self.filesystem.delete_dir(self.path)
            elif self.exists():
                self.filesystem.delete_file(self.path)

    def make_folder(self) -> None:
        """Create the folder where the filesystem knows folders."""
        if self.uri.startswith("gs://"):  # pyarrow would create the bucket, too
            return
        with NamedErrors(self):
            self.filesystem.create_dir(self.path, recursive=True)


@functools.lru_cache(maxsize=256)
def _resolve(uri: str, endpoint: str | None) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
    scheme, _, rest = uri.partition("://")
    bucket = rest.partition("/")[0]
    if scheme in ("s3", "gs") and not re.fullmatch(r"[\w.-]+", bucket, re.ASCII):
        raise DataError(f"{uri!r} names no bucket: write {scheme}://bucket/path; credentials come from the environment")
    if scheme == "s3":
        region = s3.default_region() if endpoint else s3.region(bucket)
        return s3.filesystem(region, endpoint), rest
    if scheme == "gs":
        return gcs.filesystem(), rest
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
    except pa.ArrowInvalid:
        return _fsspec(uri, scheme), rest
    return filesystem, path


def _fsspec(uri: str, scheme: str) -> pyarrow.fs.FileSystem:
    import fsspec

    try:
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ValueError, ImportError) as error:
        raise DataError(f"cannot open {uri!r}: {error}: use a local path, s3:// or gs://") from None


BUCKET_ADVICE = "bucket, credentials and endpoint"


class NamedErrors:
    """Turns a storage failure into one line that names the place and the mending."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and hub.is_hub(self.place.uri) and isinstance(error, hub.failures()):
            raise DataError(hub.explained(self.place.uri, error)) from None
        if isinstance(error, FileNotFoundError):
            check = "the path" if self.place.is_local else "the bucket and the path"
            raise DataError(f"{self.place.uri!r} does not exist: check {check}") from None
        if isinstance(error, OSError):
            check = "the path, its permissions and the free space" if self.place.is_local else BUCKET_ADVICE
            raise DataError(f"cannot use {self.place.uri!r}: {first_line(error)}: check {check}") from None


def _write_local(path: Path, data: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        with temporary.open("wb") as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
