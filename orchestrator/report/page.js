"use strict";
// Exact numbers under the pointer, tables that sort and filter, responses of the cell that was chosen. Without it the
// page is complete but for the responses. Texts of the page's data are only ever put on the screen as text.
document.documentElement.classList.add("scripted");
const byId = (id) => document.getElementById(id);
const make = (tag, text, name) => {
  const element = document.createElement(tag);
  element.textContent = text;
  if (name) element.className = name;
  return element;
};

// Spots: what is said of a place in a figure.
const tip = byId("tip");
let shownFor = null;

function showTip(spot, x, y) {
  const [head, ...lines] = spot.getAttribute("aria-label").split("\n");
  tip.replaceChildren(make("b", head), ...lines.map((line) => make("span", line)));
  if (spot.dataset.sample !== undefined) tip.append(make("i", "choose it for its responses"));
  tip.hidden = false;
  shownFor = spot;
  const { width, height } = tip.getBoundingClientRect();
  const wide = document.documentElement.clientWidth;
  const above = y - height - 14;
  tip.style.left = `${Math.max(6, Math.min(wide - width - 6, x - width / 2))}px`;
  tip.style.top = `${above > 6 ? above : y + 18}px`;
}
function showAt(spot) {
  const box = spot.getBoundingClientRect();
  showTip(spot, box.left + box.width / 2, box.top + (spot.tagName === "rect" ? box.height * 0.25 : 0));
}
function hideTip() {
  tip.hidden = true;
  shownFor = null;
}
const spotOf = (event) => (event.target instanceof Element ? event.target.closest(".hit") : null);
let touched = null;
document.addEventListener("pointerdown", (event) => {
  const spot = spotOf(event);
  touched = event.pointerType === "mouse" ? null : { spot, before: shownFor };
  if (!spot) hideTip();
});
document.addEventListener("pointermove", (event) => {
  if (event.pointerType !== "mouse") return;
  const spot = spotOf(event);
  if (spot) showTip(spot, event.clientX, event.clientY);
  else if (shownFor && shownFor !== document.activeElement) hideTip();
});
document.addEventListener("focusin", (event) => {
  const spot = spotOf(event);
  if (spot) showAt(spot);
  else hideTip();
});
document.addEventListener("click", (event) => {
  const spot = spotOf(event);
  const link = event.target instanceof Element ? event.target.closest("[data-sample]") : null;
  const first = touched && touched.spot === spot && touched.before !== spot; // a first touch only tells
  if (spot && first) showAt(spot);
  else if (link) openCell(Number(link.dataset.sample));
});
document.addEventListener("scroll", () => shownFor && hideTip(), { passive: true });
addEventListener("keydown", (event) => {
  if (event.key === "Escape") hideTip();
  const spot = spotOf(event);
  if (!spot) return;
  if ((event.key === "Enter" || event.key === " ") && spot.tagName === "rect" && spot.dataset.sample !== undefined) {
    event.preventDefault();
    openCell(Number(spot.dataset.sample));
    return;
  }
  const next = neighbour(spot, event.key);
  if (!next) return;
  event.preventDefault();
  spot.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
});
function neighbour(spot, key) {
  const spots = [...spot.closest("[data-grid]").querySelectorAll(".hit")];
  const at = spots.indexOf(spot);
  const across = spot.closest("tr")?.querySelectorAll(".hit").length ?? spot.closest("svg").querySelectorAll(".hit").length;
  const step = { ArrowRight: 1, ArrowLeft: -1, ArrowDown: across, ArrowUp: -across }[key];
  return key === "Home" ? spots[0] : key === "End" ? spots.at(-1) : step && spots[at + step];
}

// Tables.
for (const head of document.querySelectorAll("th[data-sort]")) {
  head.querySelector("button").addEventListener("click", () => {
    const body = head.closest("table").tBodies[0];
    const column = head.cellIndex;
    const numeric = head.dataset.sort === "number";
    const down = head.getAttribute("aria-sort") === (numeric ? "descending" : "ascending");
    const sign = numeric === down ? 1 : -1;
    for (const other of head.parentNode.children) other.removeAttribute("aria-sort");
    head.setAttribute("aria-sort", sign === 1 ? "ascending" : "descending");
    const value = (row) => row.cells[column].dataset.value ?? row.cells[column].textContent.trim();
    const number = (text) => parseFloat(text.replaceAll(",", "").replace("−", "-"));
    const rows = [...body.rows].filter((row) => !row.classList.contains("all"));
    const keyed = rows.map((row) => [value(row), row]);
    keyed.sort(([a], [b]) => {
      if ((a === "") !== (b === "")) return a === "" ? 1 : -1; // what is missing comes last either way
      return sign * (numeric ? number(a) - number(b) : a.localeCompare(b));
    });
    body.prepend(...keyed.map(([, row]) => row));
  });
}
const filter = byId("filter");
if (filter) {
  const rows = [...byId("score-table").tBodies[0].rows];
  const texts = rows.map((row) => row.textContent.toLowerCase().replace(/\s+/g, " "));
  const apply = () => {
    const fields = [...filter.querySelectorAll("[data-column]")].filter((field) => field.value.trim());
    let count = 0;
    rows.forEach((row, at) => {
      row.hidden = !fields.every((field) => {
        const column = field.dataset.column;
        if (column) return row.dataset[column] === field.value;
        return field.value.toLowerCase().trim().split(/\s+/).every((word) => texts[at].includes(word));
      });
      count += !row.hidden;
    });
    const all = rows.length.toLocaleString("en");
    filter.querySelector("output").textContent = fields.length ? `${count.toLocaleString("en")} of ${all} rows` : `${all} rows`;
  };
  filter.addEventListener("input", apply);
  filter.addEventListener("submit", (event) => event.preventDefault());
  apply(); // a browser may have kept what was typed
}

// Responses side by side.
const data = byId("cells") ? JSON.parse(byId("cells").textContent) : { texts: [], languages: {}, cells: [] };
const place = new Map(data.cells.map((cell, at) => [cell, at]));
let current = -1;
function openCell(at) {
  if (location.hash === `#cell-${at}`) readHash();
  else location.hash = `cell-${at}`; // so that the browser's way back leads back
}
function readHash() {
  const found = /^#cell-(\d+)$/.exec(location.hash);
  if (!found || !data.cells[found[1]]) return;
  hideTip();
  showCell(Number(found[1]));
  byId("responses").scrollIntoView();
  byId("responses").focus({ preventScroll: true });
}
function showCell(at) {
  current = at;
  const [model, baseline, code, facts, samples] = data.cells[at];
  const languages = byId("pick-language");
  const models = byId("pick-model");
  languages.value = code;
  const here = data.cells.filter((cell) => cell[2] === code);
  const name = (cell) => (cell[1] === "base" ? `${cell[0]} against base` : cell[0]);
  models.replaceChildren(...here.map((cell) => Object.assign(make("option", name(cell)), { value: place.get(cell) })));
  models.value = at;
  byId("pick-before").disabled = models.selectedIndex === 0;
  byId("pick-after").disabled = models.selectedIndex === here.length - 1;
  const [language, direction] = data.languages[code];
  const heading = make("h3", `${model} against ${baseline}, evaluated in ${language}`);
  const told = make("p", facts.join(" · "), "told");
  byId("shown").replaceChildren(heading, told, ...samples.map((sample) => drawSample(sample, model, baseline, code, direction)));
}
const TONES = { win: "win", loss: "loss", tie: "tie" };
function drawSample(sample, model, baseline, code, direction) {
  const [id, ...texts] = sample;
  const [asked, reference, first, second, outcome, ...orders] = texts.map((text) => (text < 0 ? null : data.texts[text]));
  const drawn = byId("sample").content.cloneNode(true);
  const find = (selector) => drawn.querySelector(selector);
  const say = (selector, text) => Object.assign(find(selector), { textContent: text || "(nothing)", lang: code, dir: direction });
  const pill = Object.assign(find(".pill"), { textContent: outcome });
  pill.classList.add(TONES[outcome] ?? "open");
  find(".key").textContent = id;
  find(".model b").textContent = model;
  find(".baseline b").textContent = baseline;
  say(".asked", asked);
  say(".model .said", second);
  say(".baseline .said", first);
  if (reference === null) find(".reference").remove();
  else say(".reference .said", reference);
  find(".verdict").textContent = orders.join(" ");
  return drawn;
}
if (data.cells.length) {
  const codes = [...new Set(data.cells.map((cell) => cell[2]))];
  byId("pick-language").replaceChildren(...codes.map((code) => Object.assign(make("option", data.languages[code][0]), { value: code })));
  byId("pick-language").addEventListener("change", (event) => {
    const code = event.target.value;
    const [model, baseline] = data.cells[current];
    const same = data.cells.findIndex((cell) => cell[2] === code && cell[0] === model && (cell[1] === "base") === (baseline === "base"));
    showCell(same < 0 ? data.cells.findIndex((cell) => cell[2] === code) : same);
  });
  byId("pick-model").addEventListener("change", (event) => showCell(Number(event.target.value)));
  for (const [id, step] of [["pick-before", -1], ["pick-after", 1]]) {
    byId(id).addEventListener("click", () => showCell(Number(byId("pick-model").options[byId("pick-model").selectedIndex + step].value)));
  }
  showCell(Number(byId("shown").dataset.first));
  addEventListener("hashchange", readHash);
  readHash();
}
