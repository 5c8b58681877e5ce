"""Whether an endpoint can be asked at all: its key, a first question before any work, and what a user can mend.

Every error here is an `EndpointError`: it ends the run, and says what to do.
"""

import asyncio
import ipaddress
import os
import time
import urllib.parse

import aiohttp

from pipeline.config import Endpoint
from pipeline.errors import EndpointError

PREFLIGHT_S = 10.0


def key_of(endpoint: Endpoint) -> str | None:
    """The key from the environment; None where the config says that there is none."""
    if endpoint.api_key_env is None:
        return None
    key = os.environ.get(endpoint.api_key_env, "").strip()
    if not (key.isascii() and key.isprintable()):
        raise EndpointError(
            f"the key in the environment variable {endpoint.api_key_env} holds characters that no HTTP header may: set it anew"
        )
    if not key:
        raise EndpointError(
            f"no key for {endpoint.model!r}: the environment variable {endpoint.api_key_env} is not set: "
            "set it (on a cluster: on every node, before ray start), or name another one in api_key_env (null: no key)"
        )
    return key


def authorization(key: str | None) -> dict[str, str]:
    """The header that carries the key."""
    return {"Authorization": f"Bearer {key}"} if key else {}


def explain_refusal(endpoint: Endpoint, status: int, message: str) -> str:
    """What to mend where an endpoint refuses every request."""
    mend = {
        401: f"check the key in the environment variable {endpoint.api_key_env}",
        403: f"check what the key in {endpoint.api_key_env} may do",
        404: "check the model's name and base_url",
    }.get(status, "check the account's balance and limits")
    return f"{endpoint.base_url} refuses {endpoint.model!r} with HTTP {status} ({message}): {mend}"


def is_loopback(url: str) -> bool:
    """Whether a URL leads to this machine and no other, so that no proxy is asked for the way."""
    host = urllib.parse.urlsplit(url).hostname or ""
    try:
        return host == "localhost" or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def unreachable(endpoint: Endpoint, error: object) -> EndpointError:
    """Nobody answers there."""
    return EndpointError(f"{endpoint.base_url} cannot be reached ({error}): start it, or correct base_url")


async def preflight(endpoint: Endpoint) -> None:
    """Ask an endpoint for its models before any work: raises EndpointError for a wrong key or nobody there.

    Where it has several routes each needs its key, and one that answers is enough.
    """
    for way in endpoint.ways:
        key_of(way)
    found = await asyncio.gather(*map(_answers, endpoint.ways), return_exceptions=True)
    errors = [error for error in found if isinstance(error, BaseException)]
    if len(errors) == len(found):
        raise errors[0]


async def _answers(way: Endpoint) -> None:
    headers = authorization(key_of(way))
    deadline = time.monotonic() + PREFLIGHT_S
    timeout = aiohttp.ClientTimeout(total=PREFLIGHT_S)
    async with aiohttp.ClientSession(
        timeout=timeout, headers=headers, trust_env=not is_loopback(way.base_url)
    ) as session:
        while True:
            try:
                async with session.get(f"{way.base_url.rstrip('/')}/models") as response:
                    if response.status in (401, 403):
                        raise EndpointError(explain_refusal(way, response.status, "on /models"))
                    return
            except (aiohttp.ClientError, TimeoutError, ValueError) as error:
                if time.monotonic() > deadline:
                    raise unreachable(way, error) from None
                await asyncio.sleep(0.5)
