"""The Serve application of stage 6: vLLM replicas behind one OpenAI-compatible address, with keys.

Ray Serve LLM's own, in three ways stricter: a key is asked for where one is set; a request whose replica dies before it answered
goes to another one; and what cannot be served is a 503 that says so, not a 500. And one way cheaper: many streams at once pass on
several tokens in a message. `build` is what `serve deploy` imports. A module of its own, for it imports vLLM.
"""

import hashlib
import hmac
import json
import os
import time
from collections.abc import AsyncGenerator
from typing import Any

from fastapi import FastAPI
from ray import serve
from ray.exceptions import RayActorError
from ray.llm._internal.common.errors import VLLM_FATAL_ERRORS
from ray.llm._internal.serve.core.configs.openai_api_models import OpenAIHTTPException, to_model_metadata
from ray.llm._internal.serve.core.ingress.ingress import init as fastapi_app
from ray.serve.deployment import Application
from ray.serve.exceptions import BackPressureError
from ray.serve.llm import LLMConfig, build_llm_deployment
from ray.serve.llm.deployment import LLMServer
from ray.serve.llm.ingress import OpenAiIngress, make_fastapi_ingress
from starlette.responses import JSONResponse
from starlette.types import ASGIApp, Receive, Scope, Send

TRIES = 3
"""Replicas that one request may lose."""
GONE = (RayActorError, *VLLM_FATAL_ERRORS)
MESSAGES_PER_S = min(1000, 25 * len(os.sched_getaffinity(0)))
"""Messages of streams that a replica sends. One costs a millisecond of CPU time on its way through replica, ingress and proxy, which a
model on the CPU lacks then; and a replica's event loop is one thread."""


class KeyRequired:
    """ASGI middleware: `Authorization: Bearer KEY`, with the key of an environment variable."""

    def __init__(self, app: ASGIApp, variable: str) -> None:
        self._app, self._known = app, _digest(os.environ[variable].strip())

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Let a request through, or answer it with 401."""
        if scope["type"] != "http" or scope["method"] == "OPTIONS" or self._authorised(scope):
            await self._app(scope, receive, send)
            return
        refused = OpenAIHTTPException(
            401, "no valid API key: send it as `Authorization: Bearer KEY`", "AuthenticationError"
        )
        answer = JSONResponse({"error": _as_told(refused)}, 401, {"WWW-Authenticate": "Bearer"})
        await answer(scope, receive, send)

    def _authorised(self, scope: Scope) -> bool:
        kind, _, key = dict(scope["headers"]).get(b"authorization", b"").partition(b" ")
        # In constant time: how long it takes tells nothing of the key.
        return kind.lower() == b"bearer" and hmac.compare_digest(_digest(key.strip().decode("latin-1")), self._known)


def _digest(key: str) -> bytes:
    return hashlib.sha256(key.encode()).digest()


class Ingress(OpenAiIngress):
    """Where requests come in."""

    def __init__(self, *arguments: Any, key_variable: str | None, **options: Any) -> None:
        """`key_variable` must be set on every node that an ingress may run on."""
        if key_variable and not os.environ.get(key_variable, "").strip():
            raise RuntimeError(f"the environment variable {key_variable} of serve.api_key_env is not set on this node")
        super().__init__(*arguments, **options)

    async def _get_response(self, **asked: Any) -> AsyncGenerator[Any, None]:
        for left in reversed(range(TRIES)):
            begun = False
            try:
                async for response in super()._get_response(**asked):
                    begun = True
                    yield response
                return
            except BackPressureError as error:
                raise _unavailable("more requests wait than serve.max_queued allows") from error
            except GONE as error:
                gone = _unavailable("the replica that was to answer has ended")
                if begun:  # its status, 200, went out long ago
                    yield [f"data: {json.dumps({'error': _as_told(gone)})}\n\n"]
                    return
                if not left:
                    raise gone from error


class Server(LLMServer):
    """A replica. Its streams share `MESSAGES_PER_S`: a single one gets each token at once, many get some tokens at a time."""

    _streams = 0

    async def _batch_output_stream(self, generator: AsyncGenerator[Any, None]) -> AsyncGenerator[list[Any], None]:
        waiting: list[Any] = []
        sent = 0.0
        self._streams += 1
        try:
            async for chunk in generator:
                waiting.append(chunk)
                if time.monotonic() - sent >= self._streams / MESSAGES_PER_S:
                    yield waiting
                    waiting, sent = [], time.monotonic()
            if waiting:
                yield waiting
        finally:
            self._streams -= 1


def _as_told(error: OpenAIHTTPException) -> dict[str, Any]:
    return {"message": error.message, "type": error.type, "code": error.status_code}


def _unavailable(why: str) -> OpenAIHTTPException:
    return OpenAIHTTPException(503, f"{why}: try again", "ServiceUnavailable")


def build(arguments: dict[str, Any]) -> Application:
    """The application: `llm_configs` are those of Ray Serve LLM, `ingress` the options of the ingress deployment, `key_variable`
    names the environment variable with the key.
    """
    configs = [LLMConfig.model_validate(each) for each in arguments["llm_configs"]]
    app: FastAPI = fastapi_app()
    if variable := arguments["key_variable"]:
        app.add_middleware(KeyRequired, variable=variable)
    options = {**OpenAiIngress.get_deployment_options(configs), **arguments["ingress"]}
    bound: Application = serve.deployment(make_fastapi_ingress(Ingress, app=app), **options).bind(
        llm_deployments={each.model_id: build_llm_deployment(each, deployment_cls=Server) for each in configs},
        model_cards={each.model_id: to_model_metadata(each.model_id, each) for each in configs},
        key_variable=variable,
    )
    return bound
