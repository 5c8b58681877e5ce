"""S3 with patience: pyarrow's filesystem, asked again where the service is busy.

In: a region and, for a service that is not AWS, its endpoint. Out: a filesystem that takes its patience along to other processes.

pyarrow gives AWS's library a buffer as large as the range that it reads. The text of a 503 does not fit into that of a short range, and
instead of a 503, which would be retried, comes an "AWS Error INTERNAL_FAILURE", which is not. Streams read those again by themselves; who
reads otherwise does it by `again`. A file that reads again by itself would be Python to Arrow, whose threads crash when they let go of such
things in a process that ends.
"""

import functools
import os
import time
from collections.abc import Callable
from typing import Any, TypeVar

import pyarrow as pa
import pyarrow.fs

from pipeline.errors import DataError

T = TypeVar("T")

_ATTEMPTS = 9
"""Of a request, with pauses that double, 13 s in all: it asks for patience with 503. pyarrow's own strategy makes three, and after
a hundred retries in a process none any more, for its allowance is never given back.
"""
_FIRST_PAUSE_S = 0.05
_CUT_SHORT = "Failed to flush response stream"


class PatientS3(pyarrow.fs.S3FileSystem):  # type: ignore[misc]
    """Keeps its retries in another process, where pyarrow's own forgets them. Its streams read `again`."""

    def __reduce__(self) -> tuple[Any, ...]:
        _, (options,) = super().__reduce__()
        return _with_retries, (options,)

    def open_input_stream(self, path: str, compression: str | None = "detect", buffer_size: int | None = None) -> Any:
        """As pyarrow's."""
        stream = pa.PythonFile(_Stream(self.open_input_file(path)), mode="r")
        return self._wrap_input_stream(stream, path, compression, buffer_size)


def _with_retries(options: dict[str, Any]) -> PatientS3:
    return PatientS3(**options, retry_strategy=pyarrow.fs.AwsDefaultS3RetryStrategy(max_attempts=_ATTEMPTS))


@functools.lru_cache(maxsize=8)
def filesystem(region: str, endpoint: str | None) -> PatientS3:
    """The filesystem of a region or, where it is given, of an endpoint (`config.Storage`)."""
    scheme, _, host = (endpoint or "https://").partition("://")
    if endpoint and (scheme not in ("http", "https") or not host):
        raise DataError(f"{endpoint!r} is no URL of an S3 service: give one like http://127.0.0.1:9000 or https://host")
    return _with_retries(
        {
            "region": region,
            "endpoint_override": host.rstrip("/") or None,
            "scheme": scheme,
            "allow_delayed_open": True,  # a small file is one request, not three
        }
    )


@functools.lru_cache(maxsize=256)
def region(bucket: str) -> str:
    """Where AWS keeps a bucket."""
    found, _ = pyarrow.fs.FileSystem.from_uri(f"s3://{bucket}")
    return str(found.region)


def default_region() -> str:
    """Where services that are not AWS are said to be."""
    return os.environ.get("AWS_REGION") or os.environ.get("AWS_DEFAULT_REGION") or "us-east-1"


def again(work: Callable[[], T]) -> T:
    """What some work gives, which is begun anew where S3 was too busy for a short read."""
    pause_s = _FIRST_PAUSE_S
    for _ in range(_ATTEMPTS - 1):
        try:
            return work()
        except OSError as error:
            if _CUT_SHORT not in str(error):
                raise
        time.sleep(pause_s)
        pause_s *= 2
    return work()


class _Stream:
    """What `pa.PythonFile` asks of a file that is read from its begin to its end."""

    def __init__(self, file: pa.NativeFile) -> None:
        self._file = file
        self.seek, self.tell, self.close = file.seek, file.tell, file.close

    @property
    def closed(self) -> bool:
        return bool(self._file.closed)

    def read(self, size: int) -> Any:
        return again(lambda: self._file.read(size))  # one that fails does not move on
