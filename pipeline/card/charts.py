"""Bar charts and histograms as SVG files, for a README draws nothing itself.

In: counts by name, or positive numbers. Out: the text of an SVG. It brings its own ground and takes the reader's light
or dark colours, so that it is legible on any page; a title and a description are there for those who hear it.
"""

import math
import unicodedata
from collections.abc import Iterable, Sequence

import numpy as np
import numpy.typing as npt
from markupsafe import escape

from pipeline import histograms
from pipeline.figures import count, share
from pipeline.markdown import visible

WIDTH = 720
LEFT, RIGHT, TOP = 64, 28, 68
LABEL, BAR, ROW = 204, 340, 26
PLOT_HEIGHT, AXIS_HEIGHT = 170, 52
MOST_TICKS = 9
LABEL_CELLS = 24
"""Of a label, in widths of a Latin letter: Chinese characters take two."""

STYLE = """
.ground { fill: #ffffff; stroke: #e3e3de } .bar { fill: #0067b8 } .grid { stroke: #e3e3de } .base { stroke: #63676e }
.median { stroke: #a83f00; stroke-dasharray: 4 3 } .strong { fill: #a83f00 }
.title { fill: #1d1f23; font-weight: 600; font-size: 15px }
text { fill: #54585f; font: 13px system-ui, -apple-system, "Segoe UI", Roboto, "Helvetica Neue", Arial, sans-serif }
@media (prefers-color-scheme: dark) {
.ground { fill: #1a1c20; stroke: #2e3137 } .bar { fill: #5aaef2 } .grid { stroke: #2e3137 } .base { stroke: #a0a3a9 }
.median { stroke: #f2a55c } .strong { fill: #f2a55c } .title { fill: #e7e6e2 } text { fill: #b4b7bc }
}"""
"""The colours of the report's page. A class outweighs `text`, wherever it stands."""


def bars(title: str, description: str, counts: Sequence[tuple[str, int]]) -> str:
    """A horizontal bar for each name, with its count and its share."""
    total, most = sum(n for _, n in counts), max(n for _, n in counts)
    parts = []
    for row, (name, n) in enumerate(counts):
        y = TOP - 16 + row * ROW
        width = BAR * n / most
        parts += [
            _text(LABEL, y + 14, _fitted(name), anchor="end"),
            f'<rect class="bar" x="{LABEL + 10}" y="{y + 2}" width="{max(width, 1):.1f}" height="{ROW - 9}" rx="2"/>',
            _text(LABEL + 18 + width, y + 14, f"{count(n)} ({share(n, total)})"),
        ]
    return _svg(title, description, TOP + len(counts) * ROW - 4, parts)


def histogram(title: str, description: str, values: npt.NDArray[np.int64], axis: str) -> str:
    """How many values lie where: on a logarithmic axis where they span a lot. All are at least 1."""
    bins = histograms.bins(int(values.min()), int(values.max()))
    counts, _ = np.histogram(values, bins.edges)
    low, high = float(bins.edges[0]), float(bins.edges[-1])
    bottom = TOP + PLOT_HEIGHT
    steps = _equal_ticks(0, float(counts.max()))

    def x(value: float) -> float:
        along = math.log(value / low) / math.log(high / low) if bins.logarithmic else (value - low) / (high - low)
        return LEFT + (WIDTH - LEFT - RIGHT) * along

    def y(n: float) -> float:
        return bottom - PLOT_HEIGHT * n / steps[-1]

    parts = []
    for step in steps:
        parts.append(_line("grid" if step else "base", LEFT, y(step), WIDTH - RIGHT, y(step)))
        parts.append(_text(LEFT - 8, y(step) + 4, count(step), anchor="end"))
    for n, left, right in zip(counts, bins.edges[:-1], bins.edges[1:], strict=True):
        if n:
            size = f'width="{max(x(right) - x(left) - 1, 1):.1f}" height="{bottom - y(n):.1f}"'
            parts.append(f'<rect class="bar" x="{x(left) + 0.5:.1f}" y="{y(n):.1f}" {size}/>')
    for tick in _log_ticks(low, high) if bins.logarithmic else _equal_ticks(low, high):
        if low <= tick <= high:
            parts.append(_line("base", x(tick), bottom, x(tick), bottom + 5))
            parts.append(_text(x(tick), bottom + 20, count(tick), anchor="middle"))
    named = f"{axis} (logarithmic)" if bins.logarithmic else axis
    parts.append(_text((LEFT + WIDTH - RIGHT) / 2, bottom + 41, named, anchor="middle"))
    median = float(np.median(values))
    beside, anchor = (-6, "end") if x(median) > 0.7 * WIDTH else (6, "start")
    parts.append(_line("median", x(median), TOP - 14, x(median), bottom))
    parts.append(_text(x(median) + beside, TOP - 5, f"median {count(median)}", anchor=anchor, kind="strong"))
    return _svg(title, description, bottom + AXIS_HEIGHT, parts)


def _log_ticks(low: float, high: float) -> list[float]:
    """Round numbers from `low` to `high`: 1, 2, 5 and their tenfold; powers of ten where these are many."""
    powers = [10.0**power for power in range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)]
    ticks = [factor * power for power in powers for factor in (1, 2, 5) if low <= factor * power <= high]
    return ticks if len(ticks) <= MOST_TICKS else powers


def _equal_ticks(low: float, high: float) -> list[float]:
    """Some six whole numbers at equal steps, the first at most `low`, the last at least `high`."""
    rough = (high - low) / 6
    power = 10.0 ** math.floor(math.log10(max(rough, 1)))
    step = next(factor * power for factor in (1, 2, 5, 10) if factor * power >= rough)
    return [step * k for k in range(math.floor(low / step), math.ceil(high / step) + 1)]


def _fitted(label: str) -> str:
    """A label cut where it would leave its column."""
    cells = 0
    for place, character in enumerate(label):
        cells += 2 if unicodedata.east_asian_width(character) in "WF" else 1
        if cells > LABEL_CELLS:
            return label[:place] + "…"
    return label


def _line(kind: str, x1: float, y1: float, x2: float, y2: float) -> str:
    return f'<line class="{kind}" x1="{x1:.1f}" y1="{y1:.1f}" x2="{x2:.1f}" y2="{y2:.1f}"/>'


def _text(x: float, y: float, text: str, anchor: str = "start", kind: str = "") -> str:
    named = f' class="{kind}"' if kind else ""
    return f'<text{named} x="{x:.1f}" y="{y:.1f}" text-anchor="{anchor}">{escape(visible(text))}</text>'


def _svg(title: str, description: str, height: float, parts: Iterable[str]) -> str:
    inner = "\n".join(parts)
    size = f'width="{WIDTH}" height="{height:.0f}" viewBox="0 0 {WIDTH} {height:.0f}"'
    return f"""<svg xmlns="http://www.w3.org/2000/svg" {size} role="img" aria-labelledby="title description">
<title id="title">{escape(visible(title))}</title>
<desc id="description">{escape(visible(description))}</desc>
<style>{STYLE}
</style>
<rect class="ground" x="0.5" y="0.5" width="{WIDTH - 1}" height="{height - 1:.0f}" rx="8"/>
{_text(20, 30, title, kind="title")}
{inner}
</svg>
"""
