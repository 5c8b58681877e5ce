"""The page in a real browser: charts drawn, filters and keys work, no console error, no request.

Speaks the DevTools protocol to a headless Chromium on loopback; skipped where there is none.
"""

import asyncio
import json
import re
import shutil
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import pytest_asyncio
import synthetic_ablation
import synthetic_run as made
from test_report_page import hostile_run

from pipeline.config import Config
from pipeline.report.answers import Entry
from pipeline.report.summary import summarize
from pipeline.report.tables import RunTables
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

    async def choose(self, selector: str, value: str) -> None:
        await self.js(
            f"(s => {{ s.value = '{value}'; s.dispatchEvent(new Event('input', {{bubbles: true}}));"
            f" s.dispatchEvent(new Event('change', {{bubbles: true}})) }})(document.querySelector('{selector}'))"
        )

    async def key(self, name: str) -> None:
        text = {"Enter": "\r"}.get(name, name if len(name) == 1 else "")
        await self.call("Input.dispatchKeyEvent", type="keyDown", key=name, text=text)
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


@pytest.fixture(scope="module")
def ablation(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Four models, votes, a benchmark of the paper, and more problems than are drawn at once."""
    config = synthetic_ablation.config(tmp_path_factory.mktemp("run"))
    synthetic_ablation.write(config, {"math500": 24, "aime2024": 6})
    report.run(config)
    return config


MODELS = "[...document.querySelectorAll('#chart [data-model]')].map(g => g.dataset.model)"
POINTS = "document.querySelectorAll('#chart .point[data-curve={}]').length"


async def silent(browser: Browser) -> bool:
    """Nothing on the console, nothing asked of anybody."""
    assert not await browser.js("document.body.innerHTML.includes('NaN')")
    assert browser.complaints() == []
    return [url for url in browser.requested() if not url.startswith(("file:", "data:"))] == []


async def test_the_charts_are_drawn_in_silence_and_without_a_network(browser: Browser, demo: Config) -> None:
    await browser.open(demo)
    assert await browser.js(MODELS) == ["base", "stage1", "stage2"]
    assert await browser.js("document.querySelectorAll('#chart .series').length") == 3
    assert await browser.js(POINTS.format("budget_forced")) == 12
    assert await browser.js("document.querySelectorAll('#chart .point[data-curve=natural] .ring').length") == 3
    assert await browser.js("document.querySelectorAll('#chart .front').length") == 1
    assert await browser.js("document.querySelectorAll('#histograms svg').length") == 3
    assert await browser.js("document.querySelectorAll('#curves svg').length") == 6
    assert not await browser.js("!!document.querySelector('#legend [data-key=votes], #legend [data-key=reference]')")
    assert await silent(browser)


async def test_votes_go_on_from_the_natural_length_beside_the_papers_points(browser: Browser, ablation: Config) -> None:
    await browser.open(ablation)
    assert await browser.js(MODELS) == ["base", "stage1", "stage2_alone", "stage2"]
    assert await browser.js(POINTS.format("votes")) == 4 * 3, "2, 4 and 8 votes; one vote is the ring"
    assert await browser.js("[...document.querySelectorAll('#chart .known text')].map(t => t.textContent)") == [
        "o1-preview",
        "o1-mini",
        "Paper, 72B",
    ]
    starts = (
        "[...document.querySelectorAll('#chart [data-model]')].map(g => {"
        " const ring = g.querySelector('.ring');"
        " return g.querySelector('.series.votes').getAttribute('d')"
        ".startsWith(`M${ring.getAttribute('cx')} ${ring.getAttribute('cy')}`) })"
    )
    assert await browser.js(starts) == [True] * 4
    assert await silent(browser)


async def test_the_legend_switches_off_what_it_names(browser: Browser, ablation: Config) -> None:
    await browser.open(ablation)
    for key, left in (("reference", 0), ("votes", 0)):
        await browser.js(f"document.querySelector('#legend [data-key={key}]').click()")
        assert await browser.js(POINTS.format(key)) == left
        assert await browser.js(f"document.activeElement.dataset.key === '{key}'"), "the focus stays"
    await browser.js("document.querySelector('#legend [data-key=stage1]').click()")
    assert await browser.js(MODELS) == ["base", "stage2_alone", "stage2"]
    await browser.js("document.querySelector('#legend [data-key=reference]').click()")
    assert await browser.js(POINTS.format("reference")) == 3
    assert await silent(browser)


async def test_the_filters_change_the_chart_and_the_tables(browser: Browser, demo: Config) -> None:
    await browser.open(demo)
    results = report.results(demo)
    for convention, benchmark in (("last_number", "arithmetic"), ("last_number", "word problems")):
        await browser.js(f"document.querySelector('input[value={convention}]').click()")
        await browser.choose(".controls select[name=benchmark]", benchmark)
        for section in ("results", "ablation", "comparisons", "lengths"):
            shown = await browser.js(
                f"[...document.querySelectorAll('#{section} .view')].filter(v => v.offsetHeight)"
                ".map(v => [v.dataset.convention, v.dataset.benchmark])"
            )
            assert shown == [[convention, benchmark]]
        labels = await browser.js(
            "[...document.querySelectorAll('#chart .point')].map(p => p.getAttribute('aria-label'))"
        )
        expected = [f"{100 * p.accuracy:.1f}% correct" for p in results.view(benchmark, convention)]
        assert [next(part for part in text.split(": ")[1].split(" [")) for text in labels] == expected
    assert await silent(browser)


FOUND = "document.querySelector('.filters output').value"
LISTED = "document.querySelectorAll('.entry').length"


def browsed(config: Config) -> list[Entry]:
    return summarize(config, RunTables(root_of(config))).browse.entries


async def test_answers_are_filtered_by_model_verdict_and_change(browser: Browser, ablation: Config) -> None:
    await browser.open(ablation)
    entries = browsed(ablation)
    said = [{a.model: (a.verdict, a.truncated) for a in entry.answers} for entry in entries]
    right = [{model: verdict == "correct" for model, (verdict, _) in answers.items()} for answers in said]
    assert await browser.js(FOUND) == "30 of 30 problems"
    assert await browser.js(LISTED) == 20, "the others are a click away"
    await browser.js("document.getElementById('more').click()")
    assert await browser.js(LISTED) == 30
    await browser.choose(".filters [name=model]", "stage2")
    counts = {
        "right": sum(answers["stage2"] for answers in right),
        "wrong": sum(not answers["stage2"] for answers in right),
        "truncated": sum(answers["stage2"][1] for answers in said),
        "unparsable": sum(answers["stage2"][0] == "unparsable" for answers in said),
    }
    assert min(counts.values()) > 0
    for verdict, count in counts.items():
        await browser.choose(".filters [name=verdict]", verdict)
        assert await browser.js(FOUND) == f"{count} of 30 problems", verdict
    await browser.js("document.querySelector('.filters button[type=reset]').click()")
    await asyncio.sleep(0.1)
    assert await browser.js(FOUND) == "30 of 30 problems"
    gained = sum(not answers["base"] and answers["stage2"] for answers in right)
    lost = sum(answers["base"] and not answers["stage2"] for answers in right)
    for change, count in (("gained", gained), ("lost", lost), ("changed", gained + lost)):
        await browser.choose(".filters [name=change]", change)
        assert await browser.js(FOUND) == f"{count} of 30 problems", change
    await browser.choose(".filters [name=benchmark]", "aime2024")
    assert await browser.js(LISTED) <= 6
    assert await silent(browser)


async def test_answers_are_searched_and_opened_with_the_keyboard(browser: Browser, ablation: Config) -> None:
    await browser.open(ablation)
    entry = next(entry for entry in browsed(ablation) if entry.answers[-1].thought)
    await browser.key("/")
    assert await browser.js("document.activeElement.name") == "text"
    await browser.call("Input.insertText", text=entry.problem.upper())
    same = sum(other.problem == entry.problem for other in browsed(ablation))
    assert await browser.js(FOUND) == f"{same} of 30 problems"
    await browser.js("document.querySelector('.entry > summary').focus()")
    await browser.key("Enter")
    await asyncio.sleep(0.2)  # what it holds is drawn when it has opened
    shown = "document.querySelector('.entry[open]').innerText"
    for text in (entry.problem, f"Gold answer {entry.gold}", entry.answers[-1].response[-20:], "Long thought"):
        assert text in await browser.js(shown)
    folded = "[...document.querySelectorAll('.entry[open] details.thought')].map(d => d.open)"
    assert set(await browser.js(folded)) == {False}, "a long thought is folded"
    await browser.js("document.querySelector('.filters button[type=reset]').click()")
    await asyncio.sleep(0.1)
    await browser.js("document.querySelectorAll('.entry > summary')[19].focus()")
    await browser.key("ArrowDown")
    at = "[...document.querySelectorAll('.entry > summary')].indexOf(document.activeElement)"
    assert await browser.js(at) == 20, "arrows draw more where the list ends"
    assert await silent(browser)


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


async def test_a_histogram_can_be_read_with_the_keyboard(browser: Browser, ablation: Config) -> None:
    await browser.open(ablation)
    await browser.js("document.querySelector('#histograms svg').focus()")
    await browser.key("ArrowRight")
    said = await browser.js("document.getElementById('tip').innerText")
    assert re.fullmatch(r"Base, \d+ to \d+ tokens\n\d+ right\n\d+ wrong", said)


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_it_fits_a_phone(browser: Browser, ablation: Config, scheme: str) -> None:
    await browser.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
    await browser.open(ablation, width=375)
    await browser.js("document.querySelectorAll('.entry > summary')[1].click()")
    await browser.js("document.querySelectorAll('details').forEach(d => { d.open = true })")
    assert await browser.js("document.documentElement.scrollWidth") <= 375
    small = "[...document.querySelectorAll('#legend button, .filters select, .entry > summary')].filter(n => n.offsetHeight < 26)"
    assert await browser.js(f"{small}.length") == 0, "wide enough for a finger"
    assert await silent(browser)


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
    await browser.js("document.querySelectorAll('.entry > summary').forEach(line => line.click())")
    assert await browser.js("document.querySelector('.entry[open] .reply').textContent.includes('<img src=x onerror')")
    assert await browser.js("window.hacked === undefined")
    assert await browser.js("document.querySelectorAll('img, main script').length") == 0
    assert browser.complaints() == []
