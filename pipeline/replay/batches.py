"""Files and batches as OpenAI has them: upload JSON lines, make a batch of them, look until it is done, fetch the results."""

import asyncio
import json
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

from aiohttp import web

Answer = Callable[[str, dict[str, Any]], tuple[int, dict[str, Any]]]


class BatchDesk:
    """The handlers. `answer` gives status and body for a line's custom id and body; a batch takes `seconds`."""

    def __init__(self, answer: Answer, allows: Callable[[web.Request], bool], seconds: float) -> None:
        self._answer, self._allows, self._seconds = answer, allows, seconds
        self._files: dict[str, bytes] = {}
        self._batches: dict[str, dict[str, Any]] = {}
        self._done_at: dict[str, float] = {}

    def routes(self) -> list[web.RouteDef]:
        """What an application adds."""
        return [
            web.post("/v1/files", self._upload),
            web.get("/v1/files/{name}/content", self._content),
            web.post("/v1/batches", self._create),
            web.get("/v1/batches", self._list),
            web.get("/v1/batches/{name}", self._get),
        ]

    def sizes(self) -> list[int]:
        """How many requests each batch has, in the order of their making."""
        return [len(self._files[batch["input_file_id"]].splitlines()) for batch in self._batches.values()]

    async def _upload(self, request: web.Request) -> web.Response:
        if not self._allows(request):
            return web.json_response({"error": {"message": "Incorrect API key provided"}}, status=401)
        form = await request.post()
        file = form["file"]
        data = file.file.read() if isinstance(file, web.FileField) else str(file).encode()
        return web.json_response({"id": self._store(data), "object": "file", "bytes": len(data), "purpose": "batch"})

    def _store(self, data: bytes) -> str:
        name = f"file-{uuid.uuid4().hex[:16]}"
        self._files[name] = data
        return name

    async def _content(self, request: web.Request) -> web.Response:
        data = self._files.get(request.match_info["name"])
        if data is None:
            return web.json_response({"error": {"message": "No such File object"}}, status=404)
        return web.Response(body=data)

    async def _create(self, request: web.Request) -> web.Response:
        if not self._allows(request):
            return web.json_response({"error": {"message": "Incorrect API key provided"}}, status=401)
        asked = await request.json()
        if asked["input_file_id"] not in self._files:
            return web.json_response({"error": {"message": "No such File object"}}, status=400)
        name = f"batch_{uuid.uuid4().hex[:16]}"
        self._batches[name] = {
            **asked,
            "id": name,
            "object": "batch",
            "status": "in_progress",
            "created_at": int(time.time()),
            "output_file_id": None,
            "error_file_id": None,
        }
        self._done_at[name] = time.monotonic() + self._seconds
        return web.json_response(self._batches[name])

    async def _list(self, request: web.Request) -> web.Response:
        names = list(self._batches)[::-1]
        after, limit = request.query.get("after"), int(request.query.get("limit", 20))
        start = names.index(after) + 1 if after in names else 0
        page = names[start : start + limit]
        return web.json_response(
            {"object": "list", "data": [self._batches[name] for name in page], "has_more": len(names) > start + limit}
        )

    async def _get(self, request: web.Request) -> web.Response:
        batch = self._batches.get(request.match_info["name"])
        if batch is None:
            return web.json_response({"error": {"message": "No such Batch object"}}, status=404)
        if batch["status"] == "in_progress" and time.monotonic() >= self._done_at[batch["id"]]:
            await asyncio.sleep(0)
            self._complete(batch)
        return web.json_response(batch)

    def _complete(self, batch: dict[str, Any]) -> None:
        results = list(self._results(self._files[batch["input_file_id"]]))
        for key, failed in (("output_file_id", False), ("error_file_id", True)):
            lines = [line for line in results if (line["response"]["status_code"] != 200) == failed]
            if lines:
                batch[key] = self._store("".join(json.dumps(line) + "\n" for line in lines).encode())
        batch["status"] = "completed"

    def _results(self, data: bytes) -> Iterator[dict[str, Any]]:
        for text in data.splitlines():
            line = json.loads(text)
            status, body = self._answer(line["custom_id"], line["body"])
            response = {"status_code": status, "request_id": uuid.uuid4().hex, "body": body}
            yield {"id": uuid.uuid4().hex, "custom_id": line["custom_id"], "response": response, "error": None}
