// The training: loss, learning rate and gradient norm of each stage.
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
  follow(chart, curve.steps.map(x), (i) => ({ title: `${curve.label}, step ${count(curve.steps[i])}`, lines: [`${metric.name.toLowerCase()} ${format(values[i])}`] }), top, bottom);
  return chart;
}
