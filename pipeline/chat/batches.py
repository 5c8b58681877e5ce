"""Questions asked through a provider's batch API: half the price, an answer within a day.

In: requests, as they come. Out: what each one's line in the results means, as if it had been asked alone. Requests that come
together go out together, as a file of JSON lines. What was submitted is remembered in a folder before it is, so that after a
crash nothing is submitted twice: a submission carries our own name for it in its metadata, by which it is found again.
"""

import asyncio
import json
import time
import uuid
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any

import aiohttp

from pipeline.chat.reach import explain_refusal
from pipeline.chat.requests import Request
from pipeline.chat.wire import Failure, Reader
from pipeline.config import Batch, Endpoint
from pipeline.errors import EndpointError
from pipeline.responses import Reply
from pipeline.storage import Place

DONE = ("completed", "expired", "cancelled")
"""Whatever else a batch is, but `failed`, it still goes on."""
MARK = "longthought"
"""The key of our name in a batch's metadata."""
LISTED = 100
TRIES = 8

Line = tuple[int, bytes]
"""Status and body of one answer."""


class NotSubmittedError(EndpointError):
    """The provider took no batch: it bills nothing."""


class _GoneError(EndpointError):
    """What we ask for is not there any more."""


@dataclass
class _Submission:
    """A batch that went out. `batch_id` is None where a crash came before we knew it."""

    name: str
    requests: list[str]
    batch_id: str | None = None
    lines: dict[str, Line] | None = None
    taken: set[str] = field(default_factory=set)


class Batches:
    """The batches of one client. Use within one event loop."""

    def __init__(
        self, endpoint: Endpoint, settings: Batch, folder: Place, reader: Reader, headers: Mapping[str, str]
    ) -> None:
        self._endpoint, self._settings, self._folder, self._reader = endpoint, settings, folder, reader
        self._url = endpoint.base_url.rstrip("/")
        self._headers = {name: value for name, value in headers.items() if name != "Content-Type"}
        self._session: aiohttp.ClientSession | None = None
        self._known: dict[str, _Submission] = {}
        self._by_request: dict[str, list[_Submission]] = {}
        self._waiting: dict[str, tuple[Request, asyncio.Future[Line | Failure]]] = {}
        self._changed_at = 0.0
        self._gathering: asyncio.Task[None] | None = None
        self._watching: dict[str, asyncio.Task[None]] = {}

    def open(self, session: aiohttp.ClientSession) -> None:
        """Use these connections."""
        self._session = session

    async def close(self) -> None:
        """Stop waiting; what was submitted goes on."""
        tasks = [*self._watching.values(), *filter(None, [self._gathering])]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def ask(self, request: Request) -> Reply | Failure:
        """What the line of a request says, once its batch is done. Raises NotSubmittedError where it is in none."""
        started = time.monotonic()
        answer: asyncio.Future[Line | Failure] = asyncio.get_running_loop().create_future()
        self._waiting[request.request_id] = request, answer
        self._changed_at = time.monotonic()
        if self._gathering is None or self._gathering.done():
            self._gathering = asyncio.create_task(self._gather())
        try:
            line = await answer
        finally:
            self._waiting.pop(request.request_id, None)
        if isinstance(line, Failure):
            return line
        status, body = line
        return self._reader.read(request, status, {}, body, time.monotonic() - started)

    async def _gather(self) -> None:
        """Wait until no more requests come, then submit those that are in no batch yet."""
        try:
            while self._unsubmitted():
                few = len(self._unsubmitted()) < self._settings.max_requests
                rest_s = self._changed_at + self._settings.gather_s - time.monotonic()
                if few and rest_s > 0:
                    await asyncio.sleep(rest_s)
                    continue
                await self._remember_others()
                left = self._unsubmitted()[: self._settings.max_requests]
                if left:
                    await self._submit(left)
        except Exception as error:
            self._fail(error, [request.request_id for request in self._unsubmitted()])

    def _unsubmitted(self) -> list[Request]:
        """Those that wait and are in no batch; the others are watched over."""
        left = []
        for name, (request, _) in self._waiting.items():
            submission = next(
                (each for each in reversed(self._by_request.get(name, [])) if name not in each.taken), None
            )
            if submission is None:
                left.append(request)
            else:
                self._watch(submission)
        return left

    def _watch(self, submission: _Submission) -> None:
        running = self._watching.get(submission.name)
        if running is None or running.done():
            self._watching[submission.name] = asyncio.create_task(self._wait_for(submission))

    # --- submitting ---------------------------------------------------------------------------------

    async def _submit(self, requests: list[Request]) -> None:
        submission = _Submission(uuid.uuid4().hex[:16], [request.request_id for request in requests])
        await self._write(submission)
        lines = (
            {"custom_id": request.request_id, "method": "POST", "url": f"/v1/{request.path}", "body": request.body}
            for request in requests
        )
        form = aiohttp.FormData()
        form.add_field("purpose", "batch")
        data = "\n".join(json.dumps(line, ensure_ascii=False) for line in lines).encode("utf-8", "replace")
        form.add_field("file", data, filename=f"{submission.name}.jsonl", content_type="application/jsonl")
        try:
            file = await self._call("POST", "files", data=form)
        except EndpointError as error:
            raise NotSubmittedError(str(error)) from None
        batch = {
            "input_file_id": file["id"],
            "endpoint": f"/v1/{requests[0].path}",
            "completion_window": "24h",
            "metadata": {MARK: submission.name},
        }
        submission.batch_id = (await self._call("POST", "batches", json=batch))["id"]
        await self._write(submission)
        self._remember(submission)

    async def _write(self, submission: _Submission) -> None:
        """The newest of a submission's lines counts."""
        values = {"name": submission.name, "requests": submission.requests, "batch_id": submission.batch_id}
        await asyncio.to_thread((self._folder / f"{submission.name}.json").write, json.dumps(values).encode())

    def _remember(self, submission: _Submission) -> None:
        self._known[submission.name] = submission
        for name in submission.requests:
            self._by_request.setdefault(name, []).append(submission)

    async def _remember_others(self) -> None:
        """The submissions of other clients and of earlier runs. One without an id is looked for at the provider."""
        found: dict[str, str] | None = None
        for file in await asyncio.to_thread(self._folder.files, ".json"):
            name = file.name.removesuffix(".json")
            if name in self._known:
                continue
            submission = _Submission(**json.loads(await asyncio.to_thread(file.read)))
            if submission.batch_id is None:
                found = await self._submitted() if found is None else found
                submission.batch_id = found.get(name)
                if submission.batch_id is None:  # made by a client that lives and will tell, or never sent
                    continue
                await self._write(submission)
            self._remember(submission)

    async def _submitted(self) -> dict[str, str]:
        """All batches that the provider has of us, by our names."""
        found: dict[str, str] = {}
        after: dict[str, str] = {}
        while True:
            page = await self._call("GET", "batches", params={"limit": str(LISTED), **after})
            for batch in page["data"]:
                if (batch.get("metadata") or {}).get(MARK):
                    found[batch["metadata"][MARK]] = batch["id"]
            if not page.get("has_more") or not page["data"]:
                return found
            after = {"after": page["data"][-1]["id"]}

    # --- collecting ---------------------------------------------------------------------------------

    async def _wait_for(self, submission: _Submission) -> None:
        """Until a batch is done; then hand out its lines."""
        try:
            while submission.lines is None:
                batch = await self._call("GET", f"batches/{submission.batch_id}")
                status = str(batch.get("status")).lower()
                if status == "failed":  # nothing of it ran: the next run submits it anew
                    await self._forget(submission)
                    errors = (batch.get("errors") or {}).get("data") or [{}]
                    why = self._reader.one_line(str(errors[0].get("message", "no reason given")))
                    raise NotSubmittedError(f"{self._url} refuses a batch: {why}")
                if status in DONE:
                    submission.lines = await self._lines(batch)
                else:
                    await asyncio.sleep(self._settings.poll_s)
            self._hand_out(submission)
        except _GoneError as error:  # providers keep results for some weeks
            await self._forget(submission)
            submission.taken.update(submission.requests)
            gone = Failure("batch_gone", "retry", f"the results of a batch are gone: {error}", perhaps_billed=True)
            for name in submission.requests:
                self._answer(name, gone)
        except Exception as error:
            self._fail(error, submission.requests)

    async def _forget(self, submission: _Submission) -> None:
        await asyncio.to_thread((self._folder / f"{submission.name}.json").delete)

    async def _lines(self, batch: dict[str, Any]) -> dict[str, Line]:
        lines: dict[str, Line] = {}
        for key in ("output_file_id", "error_file_id"):
            if not batch.get(key):
                continue
            content = await self._call("GET", f"files/{batch[key]}/content", as_json=False)
            for text in content.split(b"\n"):
                try:
                    line = json.loads(text)
                    response = line.get("response") or {"status_code": 500, "body": {"error": line.get("error")}}
                    lines[line["custom_id"]] = response["status_code"], json.dumps(response["body"]).encode()
                except (ValueError, KeyError, TypeError, AttributeError):
                    continue
        return lines

    def _hand_out(self, submission: _Submission) -> None:
        """Every line once; a request that is asked again after that goes into another batch."""
        assert submission.lines is not None
        missing: Line = (500, b'{"error": {"message": "not in the results of its batch"}}')
        for name in submission.requests:
            if name in self._waiting and name not in submission.taken:
                submission.taken.add(name)
                self._answer(name, submission.lines.pop(name, missing))

    def _answer(self, name: str, answer: Line | Failure) -> None:
        if waiting := self._awaited(name):
            waiting.set_result(answer)

    def _fail(self, error: BaseException, names: Collection[str]) -> None:
        for name in names:
            if waiting := self._awaited(name):
                waiting.set_exception(error)

    def _awaited(self, name: str) -> "asyncio.Future[Line | Failure] | None":
        """Who waits for a request; nobody from now on."""
        _, waiting = self._waiting.pop(name, (None, None))
        return None if waiting is None or waiting.done() else waiting

    async def _call(self, method: str, path: str, *, as_json: bool = True, **options: Any) -> Any:
        """Ask the provider, again after a pause where that may help."""
        assert self._session is not None
        for attempt in range(TRIES):
            try:
                async with self._session.request(
                    method, f"{self._url}/{path}", headers=self._headers, **options
                ) as response:
                    body = await response.read()
                if response.status == 200:
                    return json.loads(body) if as_json else body
                said = self._reader.failure(response.status, body)
                again = said.meaning == "retry" and attempt < TRIES - 1
                # A batch may be there that a POST made: the next run looks for it.
                if not again or (method == "POST" and response.status != 429):
                    raise self._refusal(method, response.status, said)
            except (aiohttp.ClientError, TimeoutError, ConnectionError) as error:
                if attempt == TRIES - 1 or method == "POST":  # a POST may have been heard
                    raise EndpointError(
                        f"{self._url}/{path} gives no answer ({type(error).__name__}): try again later"
                    ) from None
            await asyncio.sleep(min(30.0, 0.5 * 2**attempt))
        raise AssertionError("not reached")

    def _refusal(self, method: str, status: int, said: Failure) -> EndpointError:
        explained = said.meaning == "end_of_route"
        text = said.error if explained else explain_refusal(self._endpoint, status, said.error)
        if method == "GET":
            return _GoneError(text) if status == 404 else EndpointError(text)
        return NotSubmittedError(text) if status < 500 and status != 408 else EndpointError(text)
