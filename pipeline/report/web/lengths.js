// How long answers are: of each model a histogram, right ones upwards and wrong ones downwards, truncated ones hollow.
const histogramHost = document.getElementById("histograms");

function drawLengths(view) {
  if (!histogramHost) return;
  const found = data.lengths.find((h) => h.benchmark === view.benchmark && h.convention === view.convention);
  const width = Math.max(280, histogramHost.clientWidth), left = 40, right = width - 8;
  const edges = found ? found.edges : [1, 2];
  const scale = (found && found.logarithmic ? logarithmic : linear)(edges[0], edges[edges.length - 1], left, right);
  const most = (side) => Math.max(1, ...(found ? found.models : []).flatMap((m) => m[side].ended.map((n, i) => n + m[side].cut[i])));
  const up = most("right"), down = most("wrong"), pixels = 140 / (up + down);
  const rows = found ? found.models.map((m, i) => drawRow(m, { edges, x: scale, width, left, right, pixels, up, down, axis: i === found.models.length - 1, logarithmic: found.logarithmic })) : [];
  histogramHost.replaceChildren(...rows);
}

function drawRow(lengths, { edges, x, width, left, right, pixels, up, down, axis, logarithmic }) {
  const top = 26, zero = top + up * pixels, bottom = zero + down * pixels, height = bottom + (axis ? 46 : 8);
  const label = modelLabel(lengths.model), index = modelIndex(lengths.model);
  const said = `${count(lengths.right.answers)} right, ${count(lengths.wrong.answers)} wrong`;
  const chart = svg("svg", { class: `s${index % 8}`, viewBox: `0 0 ${width} ${height}`, height, role: "img", tabindex: "0", "data-model": lengths.model, "aria-label": `Lengths of the answers of ${label}: ${said}. Arrow keys go from bin to bin.` });
  chart.append(svg("text", { class: "title", x: left, y: 14 }, label), svg("text", { x: right, y: 14, "text-anchor": "end" }, said));
  const step = Math.max(1, niceTicks(0, up + down, 4)[1]);
  for (let t = -Math.floor(down / step) * step; t <= up; t += step) {
    if (!t) continue;
    chart.append(svg("line", { class: "grid", x1: left, x2: right, y1: zero - t * pixels, y2: zero - t * pixels }));
    chart.append(svg("text", { x: left - 8, y: zero - t * pixels + 4, "text-anchor": "end" }, count(Math.abs(t))));
  }
  const places = edges.slice(1).map((edge, i) => (x(edges[i]) + x(edge)) / 2);
  places.forEach((_, i) => {
    const bar = { x: x(edges[i]) + 0.5, width: Math.max(1, x(edges[i + 1]) - x(edges[i]) - 1) };
    for (const [side, sign] of [["right", 1], ["wrong", -1]]) drawBars(chart, side, bar, lengths[side].ended[i], lengths[side].cut[i], zero, sign, pixels);
  });
  chart.append(svg("line", { class: "base", x1: left, x2: right, y1: zero, y2: zero }));
  if (axis) {
    const from = edges[0], to = edges[edges.length - 1], wanted = Math.max(3, Math.floor((right - left) / 60));
    tokenAxis(chart, logarithmic ? doublingTicks(from, to, wanted) : niceTicks(from, to, Math.min(8, wanted)), x, bottom);
    chart.append(svg("text", { x: (left + right) / 2, y: height - 2, "text-anchor": "middle" }, `tokens${logarithmic ? ", logarithmic" : ""}`));
  }
  const cut = (side, i) => (side.cut[i] ? ` (${count(side.cut[i])} truncated)` : "");
  const line = (name, i) => `${count(lengths[name].ended[i] + lengths[name].cut[i])} ${name}${cut(lengths[name], i)}`;
  follow(chart, places, (i) => ({ title: `${label}, ${count(Math.ceil(edges[i]))} to ${count(Math.ceil(edges[i + 1]) - 1)} tokens`, lines: [line("right", i), line("wrong", i)] }), top, bottom);
  return chart;
}

// What ended by itself stands on the zero line, what was truncated beyond it.
function drawBars(chart, side, bar, ended, cut, zero, sign, pixels) {
  const rect = (kind, from, n) => svg("rect", { class: `bar ${kind}`, ...bar, y: zero - pixels * (sign > 0 ? from + n : -from), height: Math.max(0.5, n * pixels) });
  if (ended) chart.append(rect(side, 0, ended));
  if (cut) chart.append(rect("cut", ended, cut));
}
