// The page: what the reader chose, and when the charts are drawn.
const form = document.querySelector(".controls");

function chosenView() {
  const first = data.points[0];
  const convention = form.querySelector("input[name=convention]:checked");
  const benchmark = form.querySelector("select[name=benchmark]");
  return { benchmark: benchmark ? benchmark.value : first.benchmark, convention: convention ? convention.value : first.convention };
}

function applyView() {
  const view = chosenView();
  for (const node of document.querySelectorAll(".view")) node.hidden = Object.entries(node.dataset).some(([name, value]) => view[name] !== value);
  drawAccuracy(view);
  drawLengths(view);
}

form.hidden = !form.querySelector("input, select");
form.addEventListener("change", applyView);
form.addEventListener("submit", (event) => event.preventDefault());
applyView();
drawCurves();
startBrowsing();
let drawn = document.documentElement.clientWidth;
window.addEventListener("resize", () => {
  if (document.documentElement.clientWidth === drawn) return;
  drawn = document.documentElement.clientWidth;
  hideTip();
  applyView();
  drawCurves();
});
