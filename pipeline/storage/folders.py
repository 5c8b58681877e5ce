"""Folders of files (models, checkpoints) between this machine and a place.

In: a local folder or a `Place`. Out: the same files at the other end; a local place is used as it is.
"""

import shutil
import tempfile
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.fs
from filelock import FileLock

from pipeline import records
from pipeline.errors import DataError
from pipeline.storage import bucket
from pipeline.storage.place import NamedErrors, Place

STREAMS = 16
"""Files that are fetched at a time."""
PIECE = 8 << 20
"""Bytes that are asked for at a time."""
LARGEST_STREAM = bucket.MOST_PARTS * (10 << 20)
"""Bytes of the largest file that pyarrow brings to S3: its parts are of 10 MiB. DeepSpeed's states of 72B on 8 GPUs are larger."""


def upload(folder: Path, target: Place) -> None:
    """Copy a local folder to a place."""
    target.make_folder()
    files = [path for path in folder.rglob("*") if path.is_file()]
    if target.uri.startswith("s3://") and max((path.stat().st_size for path in files), default=0) > LARGEST_STREAM:
        for path in files:
            bucket.put(path, target / path.relative_to(folder).as_posix())
        return
    with NamedErrors(target):
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
    with NamedErrors(source):
        infos = source.filesystem.get_file_info(pyarrow.fs.FileSelector(source.path, recursive=True))
    files = sorted((i.path, i.size, str(i.mtime)) for i in infos if i.type == pyarrow.fs.FileType.File)
    return into / records.digest(source.uri, files)


def fetch(source: Place, into: Path, endings: tuple[str, ...] = ("",)) -> Path:
    """A local folder with the files of a place whose names end so: itself where it is local, else a copy.

    A machine's processes fetch it once, one for all, and it is moved there whole. Other endings want another `into`.
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
            try:
                _download([file for file in source.files() if file.uri.endswith(endings)], source, partial)
                partial.rename(target)
            finally:
                shutil.rmtree(partial, ignore_errors=True)
    return target


def _download(files: Iterable[Place], source: Place, target: Path) -> None:
    """Several files at a time; as streams, which S3 may be too busy for at times (`s3`)."""

    def one(file: Place) -> None:
        name = file.uri.removeprefix(f"{source.uri.rstrip('/')}/")
        if ".." in name.split("/"):
            raise DataError(f"{file.uri!r} would be written outside of its folder: rename it")
        path = target / name
        with NamedErrors(Place(str(path))):
            path.parent.mkdir(parents=True, exist_ok=True)
            with _opened(file) as source_stream, path.open("wb") as stream:
                while piece := _piece(file, source_stream):
                    stream.write(piece)

    with ThreadPoolExecutor(STREAMS) as threads:
        for _ in threads.map(one, files):
            pass


def _opened(file: Place) -> pa.NativeFile:
    with NamedErrors(file):
        return file.filesystem.open_input_stream(file.path, compression=None)


def _piece(file: Place, stream: pa.NativeFile) -> bytes:
    with NamedErrors(file):
        return bytes(stream.read(PIECE))
