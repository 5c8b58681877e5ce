"""Datasets on the Hugging Face Hub: a revision becomes a commit, and a failure one line.

In: URIs `hf://datasets/OWNER/NAME@REVISION/path`. Out: the same URIs with a commit for the revision. `storage` opens
them. Where the hub is and who asks, `huggingface_hub` reads from the environment: HF_ENDPOINT, HF_TOKEN.
"""

import functools
import re

from pipeline.errors import DataError, first_line

PREFIX = "hf://"
_COMMIT = re.compile(r"hf://datasets/([^/@]+/[^/@]+)@([0-9a-f]{40})(?:/|$)")


def is_hub(uri: str) -> bool:
    """Whether the URI is on the hub."""
    return uri.startswith(PREFIX)


def repository_and_commit(uri: str) -> tuple[str, str] | None:
    """Name and commit in a pinned URI: what is there never changes. None for any other URI."""
    found = _COMMIT.match(uri)
    return (found[1], found[2]) if found else None


def pinned(uri: str) -> str:
    """The URI with the commit that its revision is now, `main` where it names none; asked once in a process.

    Raises DataError for a dataset or revision that is not there or not open to us.
    """
    from huggingface_hub import parse_hf_uri
    from huggingface_hub.errors import HfUriError

    try:
        parsed = parse_hf_uri(uri)
    except HfUriError as error:
        raise DataError(" ".join(str(error).split())) from None
    if parsed.type != "dataset":
        raise DataError(f"{uri!r} is no dataset: write hf://datasets/OWNER/NAME@REVISION/FILE")
    commit = _commit(parsed.id, parsed.revision or "main")
    return f"{PREFIX}datasets/{parsed.id}@{commit}/{parsed.path_in_repo}".rstrip("/")


@functools.cache
def _commit(repository: str, revision: str) -> str:
    from huggingface_hub import HfApi

    try:
        return str(HfApi().dataset_info(repository, revision=revision, timeout=10).sha)
    except failures() as error:
        raise DataError(explained(f"{PREFIX}datasets/{repository}@{revision}", error)) from None


def failures() -> tuple[type[Exception], ...]:
    """What may be raised by a request to the hub."""
    from huggingface_hub.errors import HfHubHTTPError

    # OSError and the HTTPError of the HTTP client that huggingface_hub happens to be built on.
    return HfHubHTTPError.__bases__


def explained(uri: str, error: BaseException) -> str:
    """One line that says what is wrong with a URI on the hub, and what to do."""
    from huggingface_hub import constants, errors

    if isinstance(error.__cause__, errors.HfHubHTTPError):
        error = error.__cause__
    where = f"cannot use {uri!r}"
    if isinstance(error, errors.OfflineModeIsEnabled):
        return f"{where}: HF_HUB_OFFLINE is set: unset it, or give the path of a copy"
    if isinstance(error, errors.GatedRepoError):
        page = uri.removeprefix(PREFIX).partition("@")[0]
        return f"{where}: the dataset is gated: accept its terms at {constants.ENDPOINT}/{page} and set HF_TOKEN"
    if isinstance(error, errors.RepositoryNotFoundError):
        return f"{where}: {constants.ENDPOINT} has no such dataset: correct its name, or set HF_TOKEN if it is private"
    if isinstance(error, errors.RevisionNotFoundError):
        return f"{where}: the dataset has no such revision: correct what follows the @"
    if isinstance(error, errors.EntryNotFoundError | FileNotFoundError):
        return f"{uri!r} does not exist: check the path"
    if isinstance(error, errors.HfHubHTTPError):
        status = error.response.status_code
        return f"{where}: {constants.ENDPOINT} answered with status {status}: check HF_TOKEN, or try again later"
    return f"{where}: {constants.ENDPOINT} cannot be reached ({first_line(error)}): check the network, a proxy and HF_ENDPOINT"
