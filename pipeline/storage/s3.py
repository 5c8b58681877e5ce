"""S3 with patience: pyarrow's filesystem, asked again where the service is busy.

In: a region and, for a service that is not AWS, its endpoint. Out: a filesystem that takes its patience along to other processes.

pyarrow gives AWS's library a buffer as large as the range that it reads. The text of a 503 does not fit into that of a short range, and
instead of a 503, which would be retried, comes an "AWS Error INTERNAL_FAILURE", which is not: `_Reader` reads those again.
"""

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.fs

_ATTEMPTS = 9
"""Of a request, with pauses that double, 13 s in all: it asks for patience with 503. pyarrow's own strategy makes three, and after
a hundred retries in a process none any more, for its allowance is never given back.
"""
_FIRST_PAUSE_S = 0.05
_CUT_SHORT = "Failed to flush response stream"


def filesystem(region: str, endpoint: str | None) -> pyarrow.fs.FileSystem:
    """The filesystem of a region or, where it is given, of an endpoint (`config.Storage`)."""
    return pyarrow.fs.PyFileSystem(_PatientS3(region, endpoint))


def default_region() -> str:
    """Where services that are not AWS are said to be."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def region_of(found: pyarrow.fs.FileSystem) -> str:
    """The region of one of ours, or of one of pyarrow's."""
    return str(found.region if isinstance(found, pyarrow.fs.S3FileSystem) else found.handler.region)


@functools.lru_cache(maxsize=8)
def _native(region: str, endpoint: str | None) -> pyarrow.fs.S3FileSystem:
    scheme, _, host = (endpoint or "").rpartition("://")
    return pyarrow.fs.S3FileSystem(
        region=region,
        endpoint_override=host.rstrip("/") or None,
        scheme=scheme or "https",
        retry_strategy=pyarrow.fs.AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS),
        allow_delayed_open=True,  # a small file is one request, not three
    )


@dataclass(frozen=True)
class _PatientS3(pyarrow.fs.FileSystemHandler):  # type: ignore[misc]
    """pyarrow's filesystem but for its readers. Pickled as the two words that make it: pyarrow's own would forget its retries."""

    region: str
    endpoint: str | None

    @property
    def _s3(self) -> pyarrow.fs.S3FileSystem:
        return _native(self.region, self.endpoint)

    def open_input_stream(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_Reader(self._s3.open_input_file(path)), mode="r")

    def open_input_file(self, path: str) -> pa.NativeFile:
        return pa.PythonFile(_Reader(self._s3.open_input_file(path)), mode="r")

    def open_output_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._s3.open_output_stream(path, metadata=metadata)

    def open_append_stream(self, path: str, metadata: Any) -> pa.NativeFile:
        return self._s3.open_append_stream(path, metadata=metadata)

    def get_file_info(self, paths: list[str]) -> list[pyarrow.fs.FileInfo]:
        return list(self._s3.get_file_info(paths))

    def get_file_info_selector(self, selector: pyarrow.fs.FileSelector) -> list[pyarrow.fs.FileInfo]:
        return list(self._s3.get_file_info(selector))

    def create_dir(self, path: str, recursive: bool) -> None:
        self._s3.create_dir(path, recursive=recursive)

    def delete_dir(self, path: str) -> None:
        self._s3.delete_dir(path)

    def delete_dir_contents(self, path: str, missing_dir_ok: bool = False) -> None:
        self._s3.delete_dir_contents(path, missing_dir_ok=missing_dir_ok)

    def delete_root_dir_contents(self) -> None:
        self._s3.delete_dir_contents("", accept_root_dir=True)

    def delete_file(self, path: str) -> None:
        self._s3.delete_file(path)

    def move(self, src: str, dest: str) -> None:
        self._s3.move(src, dest)

    def copy_file(self, src: str, dest: str) -> None:
        self._s3.copy_file(src, dest)

    def normalize_path(self, path: str) -> str:
        return str(self._s3.normalize_path(path))

    def get_type_name(self) -> str:
        return "s3"


class _Reader:
    """What `pa.PythonFile` asks of a file."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def read(self, size: int) -> Any:
        return self._again(self._file.read, size)

    def read_buffer(self, size: int) -> Any:
        return self._again(self._file.read_buffer, size)

    def _again(self, read: Callable[[int], Any], size: int) -> Any:
        pause_s = _FIRST_PAUSE_S
        for _ in range(_ATTEMPTS - 1):
            try:
                return read(size)  # one that fails does not move on
            except OSError as error:
                if _CUT_SHORT not in str(error):
                    raise
            time.sleep(pause_s)
            pause_s *= 2
        return read(size)
