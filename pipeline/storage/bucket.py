"""A bucket as obstore opens it: for conditional requests and objects of any size, which pyarrow's filesystems do not know.

In: a `Place` in object storage. Out: obstore's store of its bucket, and its name there; failures as `NamedErrors` tells them.
"""

import contextlib
import math
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

from pipeline.errors import DataError, first_line
from pipeline.storage import gcs
from pipeline.storage.place import BUCKET_ADVICE, Place

MOST_PARTS = 10_000
"""Of one object: S3's limit, and Google's for S3's protocol."""
PART = 10 << 20
"""Bytes of a part, where so many suffice."""
PART_S, UPLOAD_S = 60.0, 600.0
"""Longest wait for a part to be there, and for one that is tried again."""


def opened(place: Place, answer_s: float, patience_s: float) -> tuple[Any, str]:
    """The store of a place's bucket, and the place's name in it. Waits for an answer so long, and so long for one that is asked again."""
    import obstore.store

    options: dict[str, Any] = {
        "client_options": {"timeout": f"{answer_s:g}s", "allow_http": True},
        "retry_config": {"retry_timeout": timedelta(seconds=patience_s)},
    }
    filesystem = place.filesystem
    with named_errors(place):
        if place.uri.startswith("s3://"):
            from obstore.auth.boto3 import Boto3CredentialProvider

            options["credential_provider"] = Boto3CredentialProvider()  # as pyarrow: profiles and roles too
            options["region"] = filesystem.region  # of AWS's buckets pyarrow finds it out
            if place.endpoint:
                options["endpoint"] = place.endpoint
        elif place.uri.startswith("gs://"):
            options |= gcs.obstore_options()
        # By its path: a URL with the name in it would be unquoted, and cut at a question mark.
        scheme, _, rest = place.uri.partition("://")
        bucket, _, name = rest.partition("/")
        return obstore.store.from_url(f"{scheme}://{bucket}", **options), name


def put(file: Path, target: Place) -> None:
    """Store a file of any size, in as many parts as an object may have."""
    import obstore

    store, name = opened(target, PART_S, UPLOAD_S)
    part = max(PART, math.ceil(file.stat().st_size / MOST_PARTS))
    with named_errors(target):
        obstore.put(store, name, file, chunk_size=part, use_multipart=True)


@contextlib.contextmanager
def named_errors(place: Place) -> Iterator[None]:
    """Turns obstore's failures into one line that names the place and the mending."""
    from botocore.exceptions import BotoCoreError  # type: ignore[import-untyped]
    from obstore.exceptions import BaseError

    try:
        yield
    except (BaseError, BotoCoreError, OSError, ValueError) as error:
        raise DataError(f"cannot use {place.uri!r}: {first_line(error)}: check {BUCKET_ADVICE}") from None
