// Accuracy against tokens. Of each model a line of budget-forced points with its band, a ring at natural length, and dashes
// from there through its votes; the paper's points and the Pareto front beside them. Every entry of the legend is a switch.
const switchedOff = new Set();

function describe(p) {
  const interval = p.low === undefined ? "" : ` [${(100 * p.low).toFixed(1)}, ${(100 * p.high).toFixed(1)}]`;
  const correct = `${percent(p.accuracy, 1)} correct${interval}`, tokens = `${p.tokens.toFixed(1)} tokens on average`;
  if (p.curve === "reference") return { title: `${p.model}, the paper's Table 1`, lines: [correct, `${count(p.tokens)} tokens on average`, `n = ${count(p.n)}`] };
  const model = modelLabel(p.model);
  if (p.curve === "votes") {
    const lines = [correct, `one of them right: ${percent(p.passed, 1)}`, `${tokens}, all ${p.k} together`, `n = ${count(p.n)}`];
    return { title: `${model}, majority of ${p.k} answers`, lines };
  }
  const rates = `${percent(p.truncated, 1)} truncated, ${percent(p.unparsable, 1)} unparsable`;
  const n = `n = ${count(p.n)}` + (p.failed ? `, ${count(p.failed)} failed requests not counted` : "");
  const length = p.curve === "natural" ? `natural length, at most ${count(p.budget)} tokens` : `budget-forced at ${count(p.budget)} tokens`;
  return { title: `${model}, ${length}`, lines: [correct, tokens, rates, n] };
}

function drawAccuracy(view) {
  const all = data.points.filter((p) => p.benchmark === view.benchmark && (p.convention ?? view.convention) === view.convention);
  const points = all.filter((p) => !switchedOff.has(p.curve) && !switchedOff.has(p.model));
  const host = document.getElementById("chart");
  const width = Math.max(280, host.clientWidth), wide = width > 560;
  const height = wide ? 440 : 340, left = 46, right = width - (wide ? 128 : 14), top = 14, bottom = height - 48;
  const { x, ticks, name } = tokenScale(points.map((p) => p.tokens), left + 12, right - 12);
  const shares = shareTicks(Math.max(0.1, ...points.map((p) => p.high ?? p.accuracy)), wide ? 5 : 4);
  const y = linear(0, shares[shares.length - 1], bottom, top);
  const chart = svg("svg", { viewBox: `0 0 ${width} ${height}`, height, role: "group", "aria-label": `Accuracy against mean output tokens on ${view.benchmark}. Arrow keys go from point to point; the table below holds the numbers.` });
  for (const t of shares) {
    chart.append(svg("line", { class: t ? "grid" : "base", x1: left, x2: right, y1: y(t), y2: y(t) }));
    chart.append(svg("text", { x: left - 10, y: y(t) + 4, "text-anchor": "end" }, percent(t)));
  }
  tokenAxis(chart, ticks, x, bottom);
  chart.append(svg("text", { x: (left + right) / 2, y: height - 6, "text-anchor": "middle" }, `mean output tokens${name}`));
  const front = data.fronts.find((f) => f.benchmark === view.benchmark && f.convention === view.convention);
  if (points.length && !switchedOff.has("front")) chart.append(drawFront(front.points, x, y, right));
  const ends = [];
  data.models.forEach((model, index) => {
    const own = points.filter((p) => p.model === model.id);
    if (own.length) ends.push(drawModel(chart, model, index, own, x, y));
  });
  const known = points.filter((p) => p.curve === "reference").map((p) => ({ p, at: [x(p.tokens), y(p.accuracy)] }));
  for (const one of known) drawReference(chart, one, known, y, right);
  if (wide) directLabels(chart, ends, top, bottom, right);
  host.replaceChildren(chart);
  rove(chart);
  drawLegend(all, view);
}

// From 0 to the first round share that holds all, at most 100%.
function shareTicks(most, wanted) {
  const ticks = niceTicks(0, most, wanted), step = ticks[1];
  return ticks[ticks.length - 1] < most ? [...ticks, Math.min(1, ticks[ticks.length - 1] + step)] : ticks;
}

// From each point level to where the next one begins to be better.
function drawFront(points, x, y, right) {
  const steps = points.map((p, i) => `${i ? `H${x(p.tokens)}V` : `M${x(p.tokens)} `}${y(p.accuracy)}`);
  return svg("path", { class: "front", d: `${steps.join("")}H${right}` });
}

function drawModel(chart, model, index, own, x, y) {
  const forced = own.filter((p) => p.curve === "budget_forced").sort((a, b) => a.budget - b.budget);
  const natural = own.filter((p) => p.curve === "natural"), votes = own.filter((p) => p.curve === "votes" && p.k > 1);
  const group = svg("g", { class: `s${index % 8}`, "data-model": model.id });
  drawLine(group, "series", "band", forced, x, y);
  drawLine(group, "series votes", "band faint", [...natural, ...votes], x, y);
  for (const p of [...forced, ...natural, ...votes]) group.append(drawPoint(p, index, x(p.tokens), y(p.accuracy), y));
  chart.append(group);
  const last = own.reduce((a, b) => (b.tokens > a.tokens ? b : a));
  return { label: model.label, votes: last.curve === "votes" ? `maj@${last.k}` : "", index, x: x(last.tokens), y: y(last.accuracy) };
}

function drawLine(group, line, band, points, x, y) {
  if (points.length < 2) return;
  const upper = points.map((p) => `${x(p.tokens)} ${y(p.high)}`), lower = points.map((p) => `${x(p.tokens)} ${y(p.low)}`).reverse();
  group.append(svg("path", { class: band, d: `M${upper.concat(lower).join("L")}Z` }));
  group.append(svg("path", { class: line, d: `M${points.map((p) => `${x(p.tokens)} ${y(p.accuracy)}`).join("L")}` }));
}

// Named on its right, or on its left where another one or the edge is near.
function drawReference(chart, { p, at: [cx, cy] }, known, y, right) {
  const crowded = known.some(({ at }) => at[0] > cx && at[0] < cx + 100 && Math.abs(at[1] - cy) < 16);
  const left = crowded || cx > right - 80;
  const text = svg("text", { x: cx + (left ? -12 : 12), y: cy + 4.5, "text-anchor": left ? "end" : "start", "aria-hidden": "true" }, p.model);
  chart.append(svg("g", { class: "known", "data-reference": p.model }, drawPoint(p, 0, cx, cy, y), text));
}

function mark(p, index, x, y) {
  if (p.curve === "natural") return ring(x, y);
  if (p.curve === "reference") return reference(x, y);
  return marker(index, x, y, p.curve === "votes" ? 4 : 5);
}

function drawPoint(p, index, cx, cy, y) {
  const text = describe(p);
  const node = svg("g", { class: "point", role: "img", tabindex: "-1", "aria-label": `${text.title}: ${text.lines.join("; ")}`, "data-curve": p.curve });
  if (p.low !== undefined) node.append(svg("line", { class: "whisker", x1: cx, x2: cx, y1: y(p.low), y2: y(p.high) }));
  node.append(svg("circle", { class: "halo", cx, cy, r: 12 }), mark(p, index, cx, cy));
  node.append(svg("circle", { class: "hit", cx, cy, r: p.curve === "natural" ? 10 : 13 }));
  const show = () => showTip(text, node.querySelector(".hit").getBoundingClientRect());
  node.addEventListener("pointerenter", show);
  node.addEventListener("pointerleave", hideTip);
  node.addEventListener("focus", show);
  node.addEventListener("blur", hideTip);
  return node;
}

// The models' names beside the ends of their curves; in a column where these are near the edge, so that none hides a point.
function directLabels(chart, ends, top, bottom, right) {
  const gap = 17;
  ends.sort((a, b) => a.y - b.y);
  ends.forEach((end, i) => { end.at = Math.max(end.y, i ? ends[i - 1].at + gap : top); });
  for (let i = ends.length - 1; i >= 0; i--) ends[i].at = Math.min(ends[i].at, i === ends.length - 1 ? bottom - 2 : ends[i + 1].at - gap);
  for (const end of ends) {
    const name = end.label.length > 13 ? `${end.label.slice(0, 12)}…` : end.label;
    const text = svg("text", { class: "direct", x: Math.max(end.x + 16, end.x > right - 110 ? right : 0), y: end.at + 4.5 }, name, svg("tspan", { dx: 5 }, end.votes));
    chart.append(svg("g", { class: `s${end.index % 8}`, "aria-hidden": "true" }, text));
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

function drawLegend(points, view) {
  const line = (kind) => svg("line", { class: kind, x1: 1, x2: 27, y1: 10, y2: 10 });
  const entries = data.models
    .map((model, i) => ({ key: model.id, label: model.label, color: `s${i % 8}`, marks: [line("series"), marker(i, 14, 10)] }))
    .filter((entry) => points.some((p) => p.model === entry.key));
  const curves = [
    { key: "natural", label: "natural length", marks: [ring(14, 10)] },
    { key: "votes", label: "votes", marks: [line("series votes")] },
    { key: "reference", label: "the paper’s Table 1", marks: [reference(14, 10)] },
  ].filter((entry) => points.some((p) => p.curve === entry.key));
  const front = { key: "front", label: "Pareto front", marks: [svg("path", { class: "front", d: "M2 15H11V9H20V4H26" })] };
  document.getElementById("legend").replaceChildren(...[...entries, ...curves, front].map((entry) => legendSwitch(entry, view)));
}

function legendSwitch(entry, view) {
  const drawing = svg("svg", { width: 28, height: 20, "aria-hidden": "true" }, ...entry.marks);
  const button = html("button", { type: "button", class: entry.color ?? "", "data-key": entry.key, "aria-pressed": String(!switchedOff.has(entry.key)) }, drawing, html("b", {}, entry.label));
  button.addEventListener("click", () => {
    if (!switchedOff.delete(entry.key)) switchedOff.add(entry.key);
    drawAccuracy(view);
    document.querySelector(`#legend [data-key="${CSS.escape(entry.key)}"]`).focus();
  });
  return button;
}
