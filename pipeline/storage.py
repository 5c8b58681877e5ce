"""Where artifacts live: the only module that opens URIs.

In: URIs (a local path, `s3://`, `gs://`, `hf://`, or anything fsspec knows). Out: `Place` (one URI), tables of
records as Parquet, and folders of files copied to and fro.
"""

import dataclasses
import functools
import hashlib
import io
import os
import shutil
import tempfile
import uuid
from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.dataset
import pyarrow.fs
import pyarrow.parquet as pq
from filelock import FileLock

from pipeline import hub, records
from pipeline.errors import DataError

R = TypeVar("R")

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
        return _resolve(self.uri, self.endpoint)[0]

    @property
    def path(self) -> str:
        """The path inside `filesystem`."""
        return _resolve(self.uri, self.endpoint)[1]

    def exists(self) -> bool:
        """Whether there is a file or folder."""
        with _NamedErrors(self):
            return bool(self.filesystem.get_file_info(self.path).type != pyarrow.fs.FileType.NotFound)

    def is_folder(self) -> bool:
        """Whether there is a folder."""
        with _NamedErrors(self):
            return bool(self.filesystem.get_file_info(self.path).type == pyarrow.fs.FileType.Directory)

    def files(self, suffix: str = "") -> list["Place"]:
        """All files below, in the order of their paths; none when the folder does not exist."""
        selector = pyarrow.fs.FileSelector(self.path, recursive=True, allow_not_found=True)
        with _NamedErrors(self):
            infos = self.filesystem.get_file_info(selector)
        root = self.path.strip("/")  # fsspec's filesystems begin paths with a slash, whatever they were asked
        inside = (i.path.strip("/").removeprefix(root).lstrip("/") for i in infos if i.type == pyarrow.fs.FileType.File)
        return [self / path for path in sorted(inside) if path.endswith(suffix)]

    def read(self) -> bytes:
        """The file's bytes."""
        with _NamedErrors(self), self.filesystem.open_input_stream(self.path) as stream:
            return bytes(stream.read())

    def lines(self, longest: int) -> Iterator[bytes]:
        """The file's lines with their ends, one at a time, unpacked where the name ends in `.gz` or `.zst`.

        Of a line of more than `longest` bytes, `longest` + 1 come.
        """
        with _NamedErrors(self), self.filesystem.open_input_stream(self.path) as stream:
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
        with _NamedErrors(self), self.filesystem.open_input_stream(self.path) as stream:
            while piece := stream.read(1 << 22):
                found.update(piece)
        return found.hexdigest()[:16]

    def write(self, data: bytes) -> None:
        """Write the file whole or not at all, and durably."""
        with _NamedErrors(self):
            if self.is_local:
                _write_local(Path(self.path), data)
                return
            with self.filesystem.open_output_stream(self.path) as stream:
                stream.write(data)

    def delete(self) -> None:
        """Remove the file, or the folder with all it holds; nothing when there is none."""
        with suppress(FileNotFoundError):
            if self.is_folder():
                self.filesystem.delete_dir(self.path)
            elif self.exists():
                self.filesystem.delete_file(self.path)

    def make_folder(self) -> None:
        """Create the folder where the filesystem knows folders."""
        with _NamedErrors(self):
            self.filesystem.create_dir(self.path, recursive=True)


@functools.lru_cache(maxsize=256)
def _resolve(uri: str, endpoint: str | None) -> tuple[pyarrow.fs.FileSystem, str]:
    if "://" not in uri:
        return pyarrow.fs.LocalFileSystem(), str(Path(uri).absolute())
    scheme, _, rest = uri.partition("://")
    if scheme == "s3" and endpoint:
        return _s3(endpoint), rest
    try:
        filesystem, path = pyarrow.fs.FileSystem.from_uri(uri)
        return filesystem, path
    except pa.ArrowInvalid:
        return _fsspec(uri, scheme), rest


@functools.lru_cache(maxsize=8)
def _s3(endpoint: str) -> pyarrow.fs.FileSystem:
    scheme, _, host = endpoint.rpartition("://")
    return pyarrow.fs.S3FileSystem(
        endpoint_override=host.rstrip("/"),
        scheme=scheme or "https",
        region=os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1",
        allow_bucket_creation=False,
    )


def _fsspec(uri: str, scheme: str) -> pyarrow.fs.FileSystem:
    import fsspec

    try:
        return pyarrow.fs.PyFileSystem(pyarrow.fs.FSSpecHandler(fsspec.filesystem(scheme)))
    except (ValueError, ImportError) as error:
        raise DataError(f"cannot open {uri!r}: {error}: use a local path, s3:// or gs://") from None


BUCKET_ADVICE = "bucket, credentials and endpoint"


class _NamedErrors:
    """Turns a storage failure into one line that names the place and the mending."""

    def __init__(self, place: Place) -> None:
        self.place = place

    def __enter__(self) -> None:
        return None

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        if error is not None and hub.is_hub(self.place.uri) and isinstance(error, hub.failures()):
            raise DataError(hub.explained(self.place.uri, error)) from None
        if isinstance(error, FileNotFoundError):
            raise DataError(f"{self.place.uri!r} does not exist: check the path") from None
        if isinstance(error, OSError):
            first = str(error).splitlines()[0]
            check = "the path, its permissions and the free space" if self.place.is_local else BUCKET_ADVICE
            raise DataError(f"cannot use {self.place.uri!r}: {first}: check {check}") from None


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


# --- tables ---------------------------------------------------------------------------------------


def write_rows(folder: Place, record: type, rows: Iterable[Any], rows_per_file: int = 50_000) -> int:
    """Write records as Parquet files into a folder, replacing what is there. Returns their number."""
    folder.delete()
    folder.make_folder()
    table = records.to_table(record, rows)
    for index, start in enumerate(range(0, max(table.num_rows, 1), rows_per_file)):
        target = folder / f"{index:05d}.parquet"
        pq.write_table(table.slice(start, rows_per_file), target.path, filesystem=target.filesystem)
    return int(table.num_rows)


def read_rows(folder: Place, record: type[R]) -> list[R]:
    """All records of a table, in the order of its files."""
    return records.from_table(record, read_table(folder, record))


def read_table(folder: Place, record: type) -> pa.Table:
    """A table of records as Arrow, in the order of its files."""
    return _dataset(folder, record).to_table(columns=_columns(record))


def read_columns(folder: Place, columns: Iterable[str]) -> pa.Table:
    """Some columns of any Parquet table, in the order of its files."""
    return _dataset(folder, None).to_table(columns=list(columns))


def read_slice(folder: Place, record: type[R], start: int, stop: int) -> list[R]:
    """The records `start` to `stop` of a table, in the order of its files; no others are in memory."""
    found: list[R] = []
    first = 0
    for file in folder.files(".parquet"):
        with _parquet(file) as parquet:
            end = first + parquet.metadata.num_rows
            if first < stop and end > start:
                found += records.from_table(
                    record, _slice_of(parquet, record, max(start, first) - first, min(stop, end) - first)
                )
            first = end
    return found


def _slice_of(parquet: pq.ParquetFile, record: type, start: int, stop: int) -> pa.Table:
    groups, before, first = [], 0, 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if first < stop and first + rows > start:
            groups.append(group)
        elif first + rows <= start:
            before += rows
        first += rows
    return parquet.read_row_groups(groups, columns=_columns(record)).slice(start - before, stop - start)


def write_table(file: Place, table: pa.Table, *, row_group: int) -> None:
    """Write a Parquet file, whole or not at all, with so many rows in each of its row groups."""
    data = io.BytesIO()
    pq.write_table(table, data, row_group_size=row_group)
    file.write(data.getvalue())


def count_rows(folder: Place, record: type) -> int:
    """How many records a table has."""
    return int(_dataset(folder, record).count_rows())


def iter_dicts(folder: Place, columns: Iterable[str] | None = None) -> Iterator[dict[str, Any]]:
    """The rows of any Parquet table, one at a time; some of their columns, or all."""
    for batch in _dataset(folder, None).to_batches(columns=None if columns is None else list(columns), batch_size=256):
        yield from batch.to_pylist()


def rows_at(folder: Place, positions: Iterable[int]) -> list[dict[str, Any]]:
    """The rows at some positions of any Parquet table, counted through its files; few others are in memory."""
    wanted = sorted(set(positions))
    found: list[dict[str, Any]] = []
    start = 0
    for file in folder.files(".parquet"):
        with _parquet(file) as parquet:
            end = start + parquet.metadata.num_rows
            here = [position - start for position in wanted if start <= position < end]
            found += _rows_of(parquet, here) if here else []
            start = end
    return found


def _rows_of(parquet: pq.ParquetFile, positions: list[int]) -> Iterator[dict[str, Any]]:
    start = 0
    for batch in parquet.iter_batches(batch_size=64, use_threads=False):
        end = start + batch.num_rows
        for position in positions:
            if start <= position < end:
                yield from batch.slice(position - start, 1).to_pylist()
        if positions[-1] < end:
            return
        start = end


def column_names(file: Place) -> list[str]:
    """The columns of a Parquet file; none where it has no rows."""
    with _parquet(file) as parquet:
        return list(parquet.schema_arrow.names) if parquet.metadata.num_rows else []


def batches(file: Place, columns: Iterable[str], rows: int) -> Iterator[pa.RecordBatch]:
    """Some columns of a Parquet file, so many rows at a time; no more than a row group is in memory."""
    with _parquet(file) as parquet:
        yield from parquet.iter_batches(batch_size=rows, columns=list(columns), use_threads=False)


@contextmanager
def _parquet(file: Place) -> Iterator[pq.ParquetFile]:
    try:
        with _NamedErrors(file), pq.ParquetFile(file.path, filesystem=file.filesystem) as parquet:
            yield parquet
    except pa.ArrowInvalid as error:
        raise DataError(f"{file.uri!r} is no Parquet ({str(error).splitlines()[0]}): replace it") from None


def _columns(record: type) -> list[str]:
    return [field.name for field in dataclasses.fields(record)]


def _dataset(folder: Place, record: type | None) -> "pyarrow.dataset.Dataset":
    """`folder` may be a single file too."""
    files = [folder] if folder.uri.endswith(".parquet") and not folder.is_folder() else folder.files(".parquet")
    if not files:
        raise DataError(f"{folder.uri!r} holds no Parquet files: run the stage that makes it")
    paths = [file.path for file in files]
    try:
        dataset = pyarrow.dataset.dataset(paths, format="parquet", filesystem=folder.filesystem)
    except pa.ArrowInvalid as error:
        raise DataError(f"{folder.uri!r} is no Parquet ({str(error).splitlines()[0]}): replace it") from None
    if record is not None:
        missing = set(_columns(record)) - set(dataset.schema.names)
        if missing:
            raise DataError(
                f"{folder.uri!r} lacks the column {sorted(missing)[0]!r} of {record.__name__}: redo the stage that makes it"
            )
    return dataset


# --- folders of files (models, checkpoints) -------------------------------------------------------


def upload(folder: Path, target: Place) -> None:
    """Copy a local folder to a place."""
    target.make_folder()
    with _NamedErrors(target):
        pyarrow.fs.copy_files(
            str(folder.resolve()),
            target.path,
            source_filesystem=pyarrow.fs.LocalFileSystem(),
            destination_filesystem=target.filesystem,
        )


@contextmanager
def filled(target: Place) -> Iterator[Path]:
    """A local folder to write files into, which are in a place afterwards: the place itself where it is local."""
    if target.is_local:
        target.make_folder()
        yield Path(target.path)
        return
    with tempfile.TemporaryDirectory(prefix="longthought-upload-") as temporary:
        yield Path(temporary)
        upload(Path(temporary), target)


def fetched_path(source: Place, into: Path) -> Path:
    """Where `fetch` puts the files of a place: the same path on every machine, another for other content."""
    if source.is_local:
        return Path(source.path)
    with _NamedErrors(source):
        infos = source.filesystem.get_file_info(pyarrow.fs.FileSelector(source.path, recursive=True))
    return into / records.digest(source.uri, sorted((info.path, info.size, str(info.mtime)) for info in infos))


def fetch(source: Place, into: Path) -> Path:
    """A local folder with the files of a place: itself where it is local, else a copy.

    A machine's processes fetch it once, one for all, and it is moved there whole.
    """
    target = fetched_path(source, into)
    if target.exists():
        return target
    into.mkdir(parents=True, exist_ok=True)
    with FileLock(into / f".{target.name}.lock"):
        if not target.exists():
            partial = into / f".{target.name}.partial"
            shutil.rmtree(partial, ignore_errors=True)
            partial.mkdir()
            local = pyarrow.fs.LocalFileSystem()
            with _NamedErrors(source):
                pyarrow.fs.copy_files(
                    source.path, str(partial), source_filesystem=source.filesystem, destination_filesystem=local
                )
            partial.rename(target)
    return target
