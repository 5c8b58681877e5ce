// Draws the charts of the page and lets the reader choose benchmark and convention.
// In: the JSON of #data. Out: SVG. Text goes in as text nodes only, never as markup.
"use strict";
(() => {
  const data = JSON.parse(document.getElementById("data").textContent);
  const tip = document.getElementById("tip");
  const form = document.querySelector(".controls");

  const percent = (x, digits = 0) => `${(100 * x).toFixed(digits)}%`;
  const count = (x) => Math.round(x).toLocaleString("en-US");
  const modelIndex = (id) => data.models.findIndex((model) => model.id === id);

  function svg(name, attributes = {}, ...children) {
    const node = document.createElementNS("http://www.w3.org/2000/svg", name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  function html(name, attributes = {}, ...children) {
    const node = document.createElement(name);
    for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
    node.append(...children);
    return node;
  }

  // --- scales ----------------------------------------------------------------------------------

  const linear = (from, to, start, end) => (x) => start + ((x - from) / (to - from || 1)) * (end - start);
  const logarithmic = (from, to, start, end) => {
    const inner = linear(Math.log(from), Math.log(to), start, end);
    return (x) => inner(Math.log(x));
  };

  function niceTicks(from, to, wanted) {
    const rough = (to - from) / wanted || 1;
    const power = 10 ** Math.floor(Math.log10(rough));
    const step = [1, 2, 5, 10].map((m) => m * power).find((s) => s >= rough);
    const ticks = [];
    for (let i = Math.ceil(from / step - 1e-9); i * step <= to + step * 1e-9; i++) ticks.push(Number((i * step).toPrecision(12)));
    return ticks;
  }

  function tokenScale(points, start, end) {
    const values = points.map((p) => p.tokens).filter((t) => t > 0);
    if (!values.length) values.push(1);
    const low = Math.min(...values), high = Math.max(...values);
    if (high / low < 3) {
      const pad = (high - low) * 0.08 || high * 0.1;
      const from = Math.max(0, low - pad), to = high + pad;
      return { x: linear(from, to, start, end), ticks: niceTicks(from, to, 6), name: "" };
    }
    const from = low / 1.12, to = high * 1.12, ticks = [];
    const between = high / low < 12 ? [1, 1.5] : [1];
    for (let t = 2 ** Math.floor(Math.log2(from)); t <= to; t *= 2) ticks.push(...between.map((m) => m * t).filter((v) => v >= from && v <= to));
    const x = logarithmic(from, to, start, end);
    return { x: (t) => x(Math.max(t, from)), ticks, name: ", logarithmic" };
  }

  // --- marks -----------------------------------------------------------------------------------

  function marker(index, x, y, r = 5) {
    const shapes = [
      () => svg("circle", { cx: x, cy: y, r }),
      () => svg("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8 }),
      () => svg("path", { d: `M${x} ${y - r * 1.2}L${x + r * 1.15} ${y + r * 0.9}H${x - r * 1.15}Z` }),
      () => svg("path", { d: `M${x} ${y - r * 1.25}L${x + r * 1.25} ${y}L${x} ${y + r * 1.25}L${x - r * 1.25} ${y}Z` }),
    ];
    const node = shapes[index % shapes.length]();
    node.setAttribute("class", "marker");
    return node;
  }

  const ring = (x, y) => svg("circle", { class: "ring", cx: x, cy: y, r: 9 });

  function describe(p) {
    const model = data.models[modelIndex(p.model)].label;
    const budget = p.curve === "natural" ? `natural length, at most ${count(p.budget)} tokens` : `budget-forced at ${count(p.budget)} tokens`;
    const lines = [
      `${percent(p.accuracy, 1)} correct [${(100 * p.low).toFixed(1)}, ${(100 * p.high).toFixed(1)}]`,
      `${p.tokens.toFixed(1)} tokens on average`,
      `${percent(p.truncated, 1)} truncated, ${percent(p.unparsable, 1)} unparsable`,
      `n = ${count(p.n)}` + (p.failed ? `, ${count(p.failed)} failed requests not counted` : ""),
    ];
    return { title: `${model}, ${budget}`, lines };
  }

  function showTip(text, box) {
    tip.replaceChildren(html("b", {}, text.title), ...text.lines.flatMap((line, i) => (i ? [html("br"), line] : [line])));
    tip.hidden = false;
    const width = tip.offsetWidth, height = tip.offsetHeight;
    const left = Math.min(Math.max(8, box.left + box.width / 2 - width / 2), document.documentElement.clientWidth - width - 8);
    const above = box.top - height - 8;
    tip.style.left = `${left + window.scrollX}px`;
    tip.style.top = `${(above > 4 ? above : box.bottom + 8) + window.scrollY}px`;
  }
  const hideTip = () => { tip.hidden = true; };

  // --- accuracy against tokens -----------------------------------------------------------------

  function chosenView() {
    const first = data.points[0];
    const convention = form.querySelector("input[name=convention]:checked");
    const benchmark = form.querySelector("select[name=benchmark]");
    return { benchmark: benchmark ? benchmark.value : first.benchmark, convention: convention ? convention.value : first.convention };
  }

  function drawAccuracy() {
    const view = chosenView();
    const points = data.points.filter((p) => p.benchmark === view.benchmark && p.convention === view.convention);
    const host = document.getElementById("chart");
    const width = Math.max(280, host.clientWidth), wide = width > 560;
    const height = wide ? 420 : 320, left = 46, right = width - (wide ? 76 : 14), top = 14, bottom = height - 48;
    const { x, ticks, name } = tokenScale(points, left + 12, right - 12);
    const ceiling = Math.min(1, Math.ceil(Math.max(0.1, ...points.map((p) => p.high)) * 10) / 10);
    const y = linear(0, ceiling, bottom, top);
    const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": `Accuracy against mean output tokens on ${view.benchmark}. Arrow keys go from point to point; the table below holds the numbers.` });
    for (const t of niceTicks(0, ceiling, wide ? 5 : 4)) {
      chart.append(svg("line", { class: t ? "grid" : "base", x1: left, x2: right, y1: y(t), y2: y(t) }));
      chart.append(svg("text", { x: left - 10, y: y(t) + 4, "text-anchor": "end" }, percent(t)));
    }
    for (const t of ticks) {
      chart.append(svg("line", { class: "base", x1: x(t), x2: x(t), y1: bottom, y2: bottom + 5 }));
      chart.append(svg("text", { x: x(t), y: bottom + 20, "text-anchor": "middle" }, count(t)));
    }
    chart.append(svg("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, `mean output tokens${name}`));
    const ends = [];
    data.models.forEach((model, index) => {
      const own = points.filter((p) => p.model === model.id);
      if (own.length) ends.push(drawModel(chart, model, index, own, x, y));
    });
    if (wide) directLabels(chart, ends, top, bottom);
    host.replaceChildren(chart);
    rove(chart);
    drawLegend(points);
  }

  function drawModel(chart, model, index, own, x, y) {
    const line = own.filter((p) => p.curve === "budget_forced").sort((a, b) => a.budget - b.budget);
    const group = svg("g", { class: `s${index % 8}`, "data-model": model.id });
    if (line.length > 1) {
      const upper = line.map((p) => `${x(p.tokens)} ${y(p.high)}`), lower = line.map((p) => `${x(p.tokens)} ${y(p.low)}`).reverse();
      group.append(svg("path", { class: "band", d: `M${upper.concat(lower).join("L")}Z` }));
      group.append(svg("path", { class: "series", d: `M${line.map((p) => `${x(p.tokens)} ${y(p.accuracy)}`).join("L")}` }));
    }
    for (const p of [...line, ...own.filter((p) => p.curve === "natural")]) group.append(drawPoint(p, index, x(p.tokens), y(p.accuracy), y));
    chart.append(group);
    const last = line[line.length - 1] || own[own.length - 1];
    return { label: model.label, index, x: x(last.tokens), y: y(last.accuracy) };
  }

  function drawPoint(p, index, cx, cy, y) {
    const text = describe(p), natural = p.curve === "natural";
    const label = `${text.title}: ${text.lines.join("; ")}`;
    const node = svg("g", { class: "point", role: "img", tabindex: "-1", "aria-label": label, "data-curve": p.curve, "data-budget": p.budget });
    node.append(svg("line", { class: "whisker", x1: cx, x2: cx, y1: y(p.low), y2: y(p.high) }));
    node.append(svg("circle", { class: "halo", cx, cy, r: 12 }), natural ? ring(cx, cy) : marker(index, cx, cy));
    node.append(svg("circle", { class: "hit", cx, cy, r: natural ? 10 : 13 }));
    const show = () => showTip(text, node.querySelector(".hit").getBoundingClientRect());
    node.addEventListener("pointerenter", show);
    node.addEventListener("pointerleave", hideTip);
    node.addEventListener("focus", show);
    node.addEventListener("blur", hideTip);
    return node;
  }

  function directLabels(chart, ends, top, bottom) {
    const gap = 17;
    ends.sort((a, b) => a.y - b.y);
    ends.forEach((end, i) => { end.at = Math.max(end.y, i ? ends[i - 1].at + gap : top); });
    for (let i = ends.length - 1; i >= 0; i--) ends[i].at = Math.min(ends[i].at, i === ends.length - 1 ? bottom - 2 : ends[i + 1].at - gap);
    for (const end of ends) {
      const text = end.label.length > 11 ? `${end.label.slice(0, 10)}…` : end.label;
      chart.append(svg("g", { class: `s${end.index % 8}`, "aria-hidden": "true" }, svg("text", { class: "direct", x: end.x + 18, y: end.at + 4.5 }, text)));
    }
  }

  // One tab stop for the whole chart; arrows go on from there.
  function rove(chart) {
    const nodes = [...chart.querySelectorAll(".point")];
    if (!nodes.length) return;
    nodes[0].setAttribute("tabindex", "0");
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowDown: 1, ArrowLeft: -1, ArrowUp: -1 }[event.key];
      const here = nodes.indexOf(document.activeElement);
      if (event.key === "Escape") hideTip();
      if (!step || here < 0) return;
      event.preventDefault();
      const next = nodes[(here + step + nodes.length) % nodes.length];
      nodes[here].setAttribute("tabindex", "-1");
      next.setAttribute("tabindex", "0");
      next.focus({ preventScroll: true });
    });
  }

  function drawLegend(points) {
    const entry = (index, label, ...marks) => html("span", { class: `s${index % 8}` }, svg("svg", { width: 28, height: 20, "aria-hidden": "true" }, ...marks), html("b", {}, label));
    const entries = data.models.map((model, i) => [model, i]).filter(([model]) => points.some((p) => p.model === model.id));
    const nodes = entries.map(([model, i]) => entry(i, model.label, svg("line", { class: "series", x1: 1, x2: 27, y1: 10, y2: 10 }), marker(i, 14, 10)));
    if (points.some((p) => p.curve === "natural")) nodes.push(entry(0, "natural length", ring(14, 10)));
    document.getElementById("legend").replaceChildren(...nodes);
  }

  // --- training --------------------------------------------------------------------------------

  const METRICS = [
    { key: "loss", name: "Loss", height: 210, digits: 3, smooth: true },
    { key: "learning_rate", name: "Learning rate", height: 110, digits: 2, scientific: true },
    { key: "grad_norm", name: "Gradient norm", height: 110, digits: 2, smooth: true },
  ];

  function smoothed(values) {
    const reach = Math.max(1, Math.min(10, Math.round(values.length / 25)));
    return values.map((_, i) => {
      const r = Math.min(reach, i, values.length - 1 - i); // narrower at the ends, so that it does not lag
      return values.slice(i - r, i + r + 1).reduce((sum, v) => sum + v, 0) / (2 * r + 1);
    });
  }

  function drawCurves() {
    const host = document.getElementById("curves");
    if (!host) return;
    const width = Math.max(260, host.clientWidth > 836 ? (host.clientWidth - 36) / 2 : host.clientWidth);
    host.replaceChildren(...data.curves.map((curve) => {
      const color = modelIndex(curve.stage);
      const column = html("div", { class: `s${(color < 0 ? 1 : color) % 8}`, "data-stage": curve.stage }, html("h3", {}, curve.label));
      for (const metric of METRICS) column.append(drawMetric(curve, metric, width));
      return column;
    }));
  }

  function drawMetric(curve, metric, width) {
    const left = 58, right = width - 8, top = 26, bottom = metric.height - (metric.key === "grad_norm" ? 32 : 12);
    const values = curve[metric.key], all = data.curves.flatMap((c) => c[metric.key]);
    const high = Math.max(...all) || 1;
    const x = linear(curve.steps[0], curve.steps[curve.steps.length - 1], left, right);
    const y = linear(0, high * 1.04, bottom, top);
    const format = (v) => (metric.scientific ? (v ? String(Number(v.toPrecision(3)).toExponential()).replace("e-", "e−") : "0") : v.toFixed(v && v < 1 ? metric.digits : 2));
    const path = (list) => `M${list.map((v, i) => `${x(curve.steps[i])} ${y(v)}`).join("L")}`;
    const chart = svg("svg", { viewBox: `0 0 ${width} ${metric.height}`, height: metric.height, role: "img", tabindex: "0", "data-metric": metric.key });
    chart.setAttribute("aria-label", `${metric.name} of ${curve.label}, from ${format(values[0])} at step ${curve.steps[0]} to ${format(values[values.length - 1])} at step ${curve.steps[curve.steps.length - 1]}`);
    chart.append(svg("text", { class: "title", x: 0, y: 13 }, metric.name));
    for (const t of niceTicks(0, high, metric.height > 150 ? 4 : 3)) {
      chart.append(svg("line", { class: t ? "grid" : "base", x1: left, x2: right, y1: y(t), y2: y(t) }));
      chart.append(svg("text", { x: left - 8, y: y(t) + 4, "text-anchor": "end" }, metric.scientific ? format(t) : String(t)));
    }
    if (metric.key === "grad_norm") {
      for (const t of niceTicks(curve.steps[0], curve.steps[curve.steps.length - 1], 5)) chart.append(svg("text", { x: x(t), y: bottom + 18, "text-anchor": "middle" }, count(t)));
      chart.append(svg("text", { x: right, y: metric.height - 1, "text-anchor": "end" }, "step"));
    }
    if (metric.smooth) chart.append(svg("path", { class: "raw", d: path(values) }));
    chart.append(svg("path", { class: "series", d: path(metric.smooth ? smoothed(values) : values) }));
    followPointer(chart, curve, (i) => ({ title: `${curve.label}, step ${count(curve.steps[i])}`, lines: [`${metric.name.toLowerCase()} ${format(values[i])}`] }), x, top, bottom);
    return chart;
  }

  function followPointer(chart, curve, text, x, top, bottom) {
    const cursor = svg("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
    let at = 0;
    chart.append(cursor);
    const show = (i) => {
      at = Math.min(Math.max(i, 0), curve.steps.length - 1);
      const px = x(curve.steps[at]);
      cursor.setAttribute("x1", px);
      cursor.setAttribute("x2", px);
      cursor.setAttribute("visibility", "visible");
      showTip(text(at), cursor.getBoundingClientRect());
    };
    const hide = () => { cursor.setAttribute("visibility", "hidden"); hideTip(); };
    chart.addEventListener("pointermove", (event) => {
      const px = event.clientX - chart.getBoundingClientRect().left;
      let best = 0;
      curve.steps.forEach((step, i) => { if (Math.abs(x(step) - px) < Math.abs(x(curve.steps[best]) - px)) best = i; });
      show(best);
    });
    chart.addEventListener("pointerleave", hide);
    chart.addEventListener("blur", hide);
    chart.addEventListener("keydown", (event) => {
      const step = { ArrowRight: 1, ArrowLeft: -1, PageUp: 10, PageDown: -10 }[event.key];
      if (event.key === "Escape") hide();
      if (!step) return;
      event.preventDefault();
      show(at + step);
    });
  }

  // --- the page --------------------------------------------------------------------------------

  function applyView() {
    const view = chosenView();
    for (const node of document.querySelectorAll(".view")) node.hidden = node.dataset.benchmark !== view.benchmark || node.dataset.convention !== view.convention;
    drawAccuracy();
  }

  form.hidden = !form.querySelector("input, select");
  form.addEventListener("change", applyView);
  form.addEventListener("submit", (event) => event.preventDefault());
  applyView();
  drawCurves();
  let drawn = document.documentElement.clientWidth;
  window.addEventListener("resize", () => {
    if (document.documentElement.clientWidth === drawn) return;
    drawn = document.documentElement.clientWidth;
    hideTip();
    drawAccuracy();
    drawCurves();
  });
})();
