"""An HTTP server on loopback that is reached over a bad line: busy at times, and some of its answers never come."""

import asyncio
import random
import threading
from collections.abc import Collection, Mapping
from types import TracebackType
from typing import Self

from aiohttp import ClientSession, TCPConnector, web

FOR_ONE_HOP = ("Transfer-Encoding", "Expect", "Content-Length", "Connection")


class BadLine:
    """Passes HTTP requests on to a server. Of each request, by chance: refused with 503 (`busy`); done, but its answer is dropped with
    the connection (`answers_lost`); done, but silent for longer than clients wait (`mute`); not even passed on, and silent (`silent`). Methods that are `denied` get 403.
    `slow` are parts of paths, with the seconds that such a request waits; `slowed` counts them.
    """

    def __init__(
        self,
        url: str,
        *,
        denied: Collection[str] = (),
        slow: Mapping[str, float] | None = None,
        seed: int = 0,
        **shares: float,
    ) -> None:
        self.asked = self.refused = self.lost = self.slowed = 0
        self._denied = denied
        self.share(**shares)
        self._target, self._slow, self._random = url, slow or {}, random.Random(seed)
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

    def share(self, *, busy: float = 0.0, answers_lost: float = 0.0, mute: float = 0.0, silent: float = 0.0) -> None:
        """From now on."""
        self._shares = (busy, answers_lost, mute, silent)

    async def _start(self) -> None:
        app = web.Application(client_max_size=1 << 30)
        app.router.add_route("*", "/{path:.*}", self._pass_on)
        self._session = ClientSession(connector=TCPConnector(limit=0), auto_decompress=False)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1, handler_cancellation=True)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        self.url = f"http://127.0.0.1:{self._runner.addresses[0][1]}"

    async def _end(self) -> None:
        await self._runner.cleanup()
        await self._session.close()

    async def _pass_on(self, request: web.Request) -> web.StreamResponse:
        self.asked += 1
        busy, lost, mute, silent = self._shares
        drawn = self._random.random()
        body = await request.read()
        denied = request.method in self._denied
        if denied or drawn < busy:
            self.refused += 1
            status, code = (403, "AccessDenied") if denied else (503, "SlowDown")
            error = f"<Error><Code>{code}</Code><Message>Not now.</Message><HostId>{'x' * 256}</HostId></Error>"  # as long as AWS's
            return web.Response(
                status=status, text="" if request.method == "HEAD" else error, content_type="application/xml"
            )
        if drawn < busy + silent:
            self.lost += 1
            await asyncio.sleep(600)
        for part, pause_s in self._slow.items():
            if part in request.raw_path:
                self.slowed += 1
                await asyncio.sleep(pause_s)
        url = f"{self._target}{request.raw_path}"
        headers = {name: value for name, value in request.headers.items() if name not in FOR_ONE_HOP}
        async with self._session.request(request.method, url, headers=headers, data=body) as answer:
            content = await answer.read()
        if drawn < busy + silent + lost:
            self.lost += 1
            assert request.transport is not None
            request.transport.abort()
        if busy + silent + lost < drawn < busy + silent + lost + mute:
            self.lost += 1
            await asyncio.sleep(600)
        passed = web.Response(status=answer.status, headers=answer.headers)
        passed.body = content
        if request.method == "HEAD" and (length := answer.headers.get("Content-Length")):
            passed.headers["Content-Length"] = length
        return passed
