"""An HTTP server on loopback that is reached over a bad line: busy at times, and some of its answers never come."""

import asyncio
import random
import threading
from types import TracebackType
from typing import Self

from aiohttp import ClientSession, TCPConnector, web


class BadLine:
    """Passes HTTP requests on to a port. Of each request, by chance: refused with 503 before it gets there (`busy`); done, but its
    answer is dropped with the connection (`answers_lost`); done, but silent for longer than clients wait (`silent`).
    """

    def __init__(
        self, port: int, *, busy: float = 0.0, answers_lost: float = 0.0, silent: float = 0.0, seed: int = 0
    ) -> None:
        self.asked = self.refused = self.lost = 0
        self._shares, self._target, self._random = (busy, answers_lost, silent), port, random.Random(seed)
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(30)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(30)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        busy, lost, silent = self._shares
        drawn = self._random.random()
        body = await request.read()
        if drawn < busy:
            self.refused += 1
            error = "<Error><Code>SlowDown</Code><Message>Please reduce your request rate.</Message></Error>"
            return web.Response(
                status=503, text="" if request.method == "HEAD" else error, content_type="application/xml"
            )
        url = f"http://127.0.0.1:{self._target}{request.raw_path}"
        async with self._session.request(request.method, url, headers=request.headers, data=body) as answer:
            content = await answer.read()
        if drawn < busy + lost + silent:
            self.lost += 1
            if drawn >= busy + lost:
                await asyncio.sleep(60)
            assert request.transport is not None
            request.transport.abort()
        passed = web.Response(status=answer.status, headers=answer.headers)
        passed.body = content
        if request.method == "HEAD" and (length := answer.headers.get("Content-Length")):
            passed.headers["Content-Length"] = length
        return passed
