"""The page in a real browser: charts drawn, filters and keys work, no console error, no request.

Speaks the DevTools protocol to a headless Chromium on loopback; skipped where there is none.
"""

import asyncio
import json
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import synthetic_run as made
from test_report_page import hostile_run

from pipeline.config import Config
from pipeline.stage import StageFolder, root_of
from ray_jobs import report

CHROMIUM = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="needs Chromium: apt-get install chromium")

OPTIONS = (
    "--headless --no-sandbox --disable-gpu --disable-background-networking --disable-component-update --disable-sync "
    "--no-first-run --disable-dev-shm-usage --remote-debugging-port=0"
)


class Browser:
    """One page of a headless Chromium."""

    def __init__(self, socket: aiohttp.ClientWebSocketResponse) -> None:
        self._socket = socket
        self._last = 0
        self.events: list[dict[str, Any]] = []

    async def call(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._last += 1
        await self._socket.send_json({"id": self._last, "method": method, "params": parameters})
        while True:
            message = json.loads((await asyncio.wait_for(self._socket.receive(), 30)).data)
            if message.get("id") == self._last:
                assert "error" not in message, message
                return dict(message["result"])
            self.events.append(message)

    async def open(self, config: Config, width: int = 1200) -> None:
        page = Path((StageFolder(root_of(config), "report").place / "index.html").path)
        await self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=900, deviceScaleFactor=1, mobile=False
        )
        await self.call("Emulation.setFocusEmulationEnabled", enabled=True)
        for domain in ("Page", "Runtime", "Log", "Network"):
            await self.call(f"{domain}.enable")
        await self.call("Page.navigate", url=page.as_uri())
        for _ in range(100):
            if await self.js("document.readyState === 'complete' && !!document.querySelector('#chart svg')"):
                return
            await asyncio.sleep(0.1)
        raise AssertionError(f"the chart is not drawn: {self.complaints()}")

    async def js(self, expression: str) -> Any:
        result = await self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def key(self, name: str) -> None:
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=name)
        await self.call("Input.dispatchKeyEvent", type="keyUp", key=name)

    def complaints(self) -> list[dict[str, Any]]:
        """Everything on the console."""
        kinds = ("Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded")
        return [event for event in self.events if event["method"] in kinds]

    def requested(self) -> list[str]:
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]


@pytest_asyncio.fixture
async def browser(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Browser]:
    assert CHROMIUM
    profile = tmp_path_factory.mktemp("profile")
    process = await asyncio.create_subprocess_exec(
        CHROMIUM, *OPTIONS.split(), f"--user-data-dir={profile}", "about:blank", stderr=asyncio.subprocess.DEVNULL
    )
    try:
        async with asyncio.timeout(60):
            while not (found := profile / "DevToolsActivePort").exists() or len(found.read_text().split()) < 2:
                await asyncio.sleep(0.1)
        port = found.read_text().split()[0]
        async with aiohttp.ClientSession() as session:
            async with session.get(f"http://127.0.0.1:{port}/json/list") as reply:
                target = next(t for t in await reply.json() if t["type"] == "page")
            async with session.ws_connect(target["webSocketDebuggerUrl"], max_msg_size=0) as socket:
                yield Browser(socket)
    finally:
        process.terminate()
        await process.wait()


@pytest.fixture(scope="module")
def demo(tmp_path_factory: pytest.TempPathFactory) -> Config:
    config = made.config(tmp_path_factory.mktemp("run"))
    made.demo(config, problems=40)
    report.run(config)
    return config


async def test_the_charts_are_drawn_in_silence_and_without_a_network(browser: Browser, demo: Config) -> None:
    await browser.open(demo)
    models = "[...document.querySelectorAll('#chart [data-model]')].map(g => g.dataset.model)"
    assert await browser.js(models) == ["base", "stage1", "stage2"]
    assert await browser.js("document.querySelectorAll('#chart .series').length") == 3
    assert await browser.js("document.querySelectorAll('#chart .point[data-curve=budget_forced]').length") == 12
    assert await browser.js("document.querySelectorAll('#chart .point[data-curve=natural] .ring').length") == 3
    assert await browser.js("document.querySelectorAll('#curves svg').length") == 6
    assert not await browser.js("document.body.innerHTML.includes('NaN')")
    assert browser.complaints() == []
    assert [url for url in browser.requested() if not url.startswith(("file:", "data:"))] == []


async def test_the_filters_change_the_chart_and_the_tables(browser: Browser, demo: Config) -> None:
    await browser.open(demo)
    results = report.results(demo)
    for convention, benchmark in (("last_number", "arithmetic"), ("last_number", "word problems")):
        await browser.js(f"document.querySelector('input[value={convention}]').click()")
        await browser.js(
            "(s => { s.value = '" + benchmark + "'; s.dispatchEvent(new Event('change', {bubbles: true})) })"
            "(document.querySelector('select[name=benchmark]'))"
        )
        shown = await browser.js(
            "[...document.querySelectorAll('#results .view')].filter(v => v.offsetHeight)"
            ".map(v => [v.dataset.convention, v.dataset.benchmark])"
        )
        assert shown == [[convention, benchmark]]
        labels = await browser.js(
            "[...document.querySelectorAll('#chart .point')].map(p => p.getAttribute('aria-label'))"
        )
        expected = [f"{100 * p.accuracy:.1f}% correct" for p in results.view(benchmark, convention)]
        assert [next(part for part in text.split(": ")[1].split(" [")) for text in labels] == expected
    assert browser.complaints() == []


async def test_the_chart_can_be_read_with_the_keyboard(browser: Browser, demo: Config) -> None:
    await browser.open(demo)
    await browser.js("document.querySelector('#chart .point').focus()")
    first = await browser.js("document.getElementById('tip').textContent")
    assert first.startswith("Base, budget-forced at 32 tokens")
    await browser.key("ArrowRight")
    assert (await browser.js("document.getElementById('tip').textContent")).startswith(
        "Base, budget-forced at 64 tokens"
    )
    assert await browser.js("document.querySelectorAll('#chart [tabindex=\"0\"]').length") == 1, "one tab stop"
    await browser.key("Escape")
    assert await browser.js("document.getElementById('tip').hidden")


async def test_it_fits_a_phone(browser: Browser, demo: Config) -> None:
    await browser.open(demo, width=375)
    assert await browser.js("document.documentElement.scrollWidth") <= 375


async def test_it_is_dark_where_the_reader_prefers_it(browser: Browser, demo: Config) -> None:
    await browser.open(demo)
    paper = "getComputedStyle(document.body).backgroundColor"
    light = await browser.js(paper)
    await browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark"}])
    assert await browser.js(paper) != light


async def test_hostile_answers_run_nothing(browser: Browser, tmp_path: Path) -> None:
    await browser.open(hostile_run(tmp_path))
    assert await browser.js("window.hacked === undefined")
    assert await browser.js("document.querySelector('.reply').textContent.includes('</script><script>')")
    assert await browser.js("document.querySelectorAll('#chart [data-model]').length") == 2
    assert browser.complaints() == []
