"""Google Cloud Storage with an end to its patience: pyarrow's filesystem asks for a quarter of an hour, also where there are no credentials.

In: nothing; where `STORAGE_EMULATOR_HOST` is set, as for Google's own libraries, that server is asked, without credentials. Out: a
filesystem, and what obstore has to know of the same.
"""

import functools
import os
from datetime import timedelta
from typing import Any

import pyarrow.fs

_PATIENCE = timedelta(seconds=60)
"""For a request, its repetitions included."""


@functools.cache
def filesystem() -> pyarrow.fs.GcsFileSystem:
    """All buckets."""
    if not (url := _emulator()):
        return pyarrow.fs.GcsFileSystem(retry_time_limit=_PATIENCE)
    scheme, _, host = url.partition("://")
    return pyarrow.fs.GcsFileSystem(anonymous=True, scheme=scheme, endpoint_override=host, retry_time_limit=_PATIENCE)


def obstore_options() -> dict[str, Any]:
    """For a store of obstore's, besides its `client_options`."""
    url = _emulator()
    return {"base_url": url, "bearer_token": "none"} if url else {}


def _emulator() -> str:
    host = os.environ.get("STORAGE_EMULATOR_HOST", "").rstrip("/")
    return host if "://" in host or not host else f"http://{host}"
