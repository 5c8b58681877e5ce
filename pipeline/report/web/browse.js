// The answers of all models to every problem of the page: filters, search, and entries that open.
const filters = document.querySelector(".filters");
const entryHost = document.getElementById("entries"), moreButton = document.getElementById("more");
const PAGE = 20; // entries that are drawn at once: a phone draws a thousand slowly
let matching = [], drawnEntries = 0;

const TESTS = {
  right: (a) => a.verdict === "correct",
  wrong: (a) => a.verdict !== "correct",
  truncated: (a) => a.truncated,
  unparsable: (a) => a.verdict === "unparsable",
  timeout: (a) => a.verdict === "timeout",
};
const CHANGES = {
  changed: (before, after) => before !== after,
  gained: (before, after) => !before && after,
  lost: (before, after) => before && !after,
};

const searched = (entry) => [entry.problem, entry.gold, entry.level, entry.subset, ...entry.answers.flatMap((a) => [a.thought, a.response])].join("\n").toLowerCase();

function matches(entry, wanted) {
  if (wanted.benchmark && entry.benchmark !== wanted.benchmark) return false;
  const answers = wanted.model ? entry.answers.filter((a) => a.model === wanted.model) : entry.answers;
  if ((wanted.model || wanted.verdict) && !answers.some(TESTS[wanted.verdict] ?? (() => true))) return false;
  if (wanted.change) {
    const [before, after] = [wanted.before, wanted.after].map((model) => entry.answers.find((a) => a.model === model));
    if (!before || !after || !CHANGES[wanted.change](TESTS.right(before), TESTS.right(after))) return false;
  }
  return !wanted.text || searched(entry).includes(wanted.text.trim().toLowerCase());
}

function applyFilters() {
  const wanted = Object.fromEntries(new FormData(filters));
  matching = data.entries.filter((entry) => matches(entry, wanted));
  filters.elements.found.value = `${count(matching.length)} of ${count(data.entries.length)} problems`;
  drawnEntries = 0;
  entryHost.replaceChildren();
  drawMore();
}

function drawMore() {
  const next = matching.slice(drawnEntries, drawnEntries + PAGE).map(drawEntry);
  entryHost.append(...next);
  drawnEntries += next.length;
  moreButton.hidden = drawnEntries === matching.length;
  moreButton.textContent = `Show ${count(Math.min(PAGE, matching.length - drawnEntries))} more of ${count(matching.length - drawnEntries)}`;
  return next;
}

function drawEntry(entry) {
  const where = [data.benchmarks > 1 ? entry.benchmark : null, entry.level, entry.subset].filter(Boolean).join(" · ");
  const line = html("summary", {}, html("span", { class: "asked" }, entry.problem), html("span", { class: "chips" }, ...entry.answers.map(chip)));
  const node = html("details", { class: "entry" }, line);
  node.addEventListener("toggle", () => {
    if (node.open && node.children.length === 1) node.append(...opened(entry, where));
  });
  return node;
}

function chip(answer) {
  const sign = TESTS.right(answer) ? "✓" : answer.verdict === "incorrect" ? "✗" : "?";
  const said = `${modelLabel(answer.model)}: ${answer.verdict}, ${count(answer.tokens)} tokens${answer.truncated ? ", truncated" : ""}`;
  const dot = html("span", { class: `dot s${modelIndex(answer.model) % 8}` });
  return html("span", { class: `chip ${answer.verdict}`, role: "img", "aria-label": said, title: said }, dot, sign, html("i", {}, `${count(answer.tokens)}${answer.truncated ? "…" : ""}`));
}

function opened(entry, where) {
  const gold = html("p", { class: "gold" }, "Gold answer ", html("code", {}, entry.gold), where ? ` · ${where}` : "");
  return [gold, html("div", { class: "replies" }, ...entry.answers.map(reply))];
}

function reply(answer) {
  const label = modelLabel(answer.model);
  const head = html("h4", {}, html("span", { class: `dot s${modelIndex(answer.model) % 8}`, "aria-hidden": "true" }), label, html("span", { class: `verdict ${answer.verdict}` }, answer.verdict));
  const facts = html("p", { class: "fine" }, `${count(answer.tokens)} tokens${answer.truncated ? ", truncated" : ""}`);
  if (answer.extracted !== null) facts.append(" · read as ", html("code", {}, answer.extracted));
  if (answer.samples > 1) facts.append(` · ${answer.correct} of ${answer.samples} answers right`);
  const text = html("div", { class: "reply", tabindex: "0", role: "region", "aria-label": `Answer of ${label}` });
  if (answer.thought) text.append(html("details", { class: "thought" }, html("summary", {}, "Long thought"), answer.thought));
  text.append(html("div", {}, answer.response));
  return html("section", { "aria-label": label }, head, facts, text);
}

// Arrows go from entry to entry; "/" goes to the search.
function goTo(event) {
  const lines = [...entryHost.querySelectorAll(".entry > summary")], here = lines.indexOf(document.activeElement);
  const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
  if (here < 0 || !step) return;
  event.preventDefault();
  if (here + step === lines.length && !moreButton.hidden) lines.push(...drawMore().map((node) => node.firstChild));
  lines[Math.min(Math.max(here + step, 0), lines.length - 1)].focus();
}

function startBrowsing() {
  if (!filters) return;
  filters.hidden = false;
  filters.addEventListener("input", applyFilters);
  filters.addEventListener("reset", () => setTimeout(applyFilters));
  filters.addEventListener("submit", (event) => event.preventDefault());
  entryHost.addEventListener("keydown", goTo);
  moreButton.addEventListener("click", () => drawMore()[0].firstChild.focus());
  document.addEventListener("keydown", (event) => {
    if (event.key !== "/" || event.ctrlKey || event.metaKey || /INPUT|SELECT|TEXTAREA/.test(document.activeElement.tagName)) return;
    event.preventDefault();
    filters.elements.text.focus();
  });
  applyFilters();
}
