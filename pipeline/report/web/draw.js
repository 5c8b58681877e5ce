// What the charts share: nodes, scales, markers, the tip. Text goes in as text nodes only, never as markup.
const data = JSON.parse(document.getElementById("data").textContent);
const tip = document.getElementById("tip");

const percent = (x, digits = 0) => `${(100 * x).toFixed(digits)}%`;
const count = (x) => Math.round(x).toLocaleString("en-US");
const modelIndex = (id) => data.models.findIndex((model) => model.id === id);
const modelLabel = (id) => data.models[modelIndex(id)].label;

function filled(node, attributes, children) {
  for (const [key, value] of Object.entries(attributes)) node.setAttribute(key, value);
  node.append(...children);
  return node;
}
const svg = (name, attributes = {}, ...children) => filled(document.createElementNS("http://www.w3.org/2000/svg", name), attributes, children);
const html = (name, attributes = {}, ...children) => filled(document.createElement(name), attributes, children);

// --- scales --------------------------------------------------------------------------------------

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

// Powers of two, which budgets often are; some between where the axis is short, fewer where the chart is narrow.
function doublingTicks(from, to, wanted) {
  const between = to / from < 15 ? [1, 1.5] : [1];
  const ticks = [];
  for (let t = 2 ** Math.floor(Math.log2(from)); t <= to; t *= 2) ticks.push(...between.map((m) => m * t).filter((v) => v >= from && v <= to));
  const every = Math.ceil(ticks.length / wanted);
  return ticks.filter((_, i) => i % every === 0);
}

function tokenScale(tokens, start, end) {
  const values = tokens.filter((t) => t > 0);
  if (!values.length) values.push(1);
  const low = Math.min(...values), high = Math.max(...values), wanted = Math.max(3, Math.floor((end - start) / 60));
  if (high / low < 3) {
    const pad = (high - low) * 0.08 || high * 0.1;
    const from = Math.max(0, low - pad), to = high + pad;
    return { x: linear(from, to, start, end), ticks: niceTicks(from, to, Math.min(6, wanted)), name: "" };
  }
  const from = low / 1.12, to = high * 1.12, x = logarithmic(from, to, start, end);
  return { x: (t) => x(Math.max(t, from)), ticks: doublingTicks(from, to, wanted), name: ", logarithmic" };
}

function tokenAxis(chart, ticks, x, bottom) {
  for (const t of ticks) {
    chart.append(svg("line", { class: "base", x1: x(t), x2: x(t), y1: bottom, y2: bottom + 5 }));
    chart.append(svg("text", { x: x(t), y: bottom + 20, "text-anchor": "middle" }, count(t)));
  }
}

// --- marks ---------------------------------------------------------------------------------------

const diamond = (x, y, r) => svg("path", { d: `M${x} ${y - r * 1.25}L${x + r * 1.25} ${y}L${x} ${y + r * 1.25}L${x - r * 1.25} ${y}Z` });
const MARKERS = [
  (x, y, r) => svg("circle", { cx: x, cy: y, r }),
  (x, y, r) => svg("rect", { x: x - r * 0.9, y: y - r * 0.9, width: r * 1.8, height: r * 1.8 }),
  (x, y, r) => svg("path", { d: `M${x} ${y - r * 1.2}L${x + r * 1.15} ${y + r * 0.9}H${x - r * 1.15}Z` }),
  (x, y, r) => svg("path", { d: `M${x} ${y + r * 1.2}L${x + r * 1.15} ${y - r * 0.9}H${x - r * 1.15}Z` }),
];

function marker(index, x, y, r = 5) {
  const node = MARKERS[index % MARKERS.length](x, y, r);
  node.setAttribute("class", "marker");
  return node;
}

const ring = (x, y) => svg("circle", { class: "ring", cx: x, cy: y, r: 9 });
const reference = (x, y) => filled(diamond(x, y, 5), { class: "reference" }, []);

// --- the tip -------------------------------------------------------------------------------------

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

// A cursor that goes from place to place under the pointer or by arrow keys. `places` are in pixels, rising.
function follow(chart, places, text, top, bottom) {
  const cursor = svg("line", { class: "cursor", y1: top, y2: bottom, visibility: "hidden" });
  let at = 0;
  chart.append(cursor);
  const show = (i) => {
    at = Math.min(Math.max(i, 0), places.length - 1);
    cursor.setAttribute("x1", places[at]);
    cursor.setAttribute("x2", places[at]);
    cursor.setAttribute("visibility", "visible");
    showTip(text(at), cursor.getBoundingClientRect());
  };
  const hide = () => { cursor.setAttribute("visibility", "hidden"); hideTip(); };
  chart.addEventListener("pointermove", (event) => {
    const px = event.clientX - chart.getBoundingClientRect().left;
    let best = 0;
    places.forEach((place, i) => { if (Math.abs(place - px) < Math.abs(places[best] - px)) best = i; });
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
