"use strict";
// One question at a time; every answer is kept by the browser at once, and leaves it only as a file that is asked for.
// Texts are only ever put on the screen as text.
document.documentElement.classList.add("scripted");
const byId = (id) => document.getElementById(id);
const { sweep, sheet, languages, questions } = JSON.parse(byId("data").textContent);
const PARTS = ["preference", "rating_1", "rating_2"];
const CHOICES = { preference: ["1", "tie", "2"], rating_1: ["excellent", "pass", "fail"], rating_2: ["excellent", "pass", "fail"] };
const PLACE = `pinch-sheet-${sheet}`;

// What is kept: {rater, language, at, answers: {item: {preference, rating_1, rating_2}}}.
const kept = recall();
function recall() {
  const fresh = { rater: "", language: Object.keys(languages)[0], at: 0, answers: {} };
  try {
    const found = JSON.parse(localStorage.getItem(PLACE)) ?? {};
    if (typeof found.rater === "string") fresh.rater = found.rater;
    if (Object.hasOwn(languages, found.language)) fresh.language = found.language;
    if (Number.isInteger(found.at)) fresh.at = found.at;
    for (const [item] of questions) {
      for (const part of PARTS) {
        const said = found.answers?.[item]?.[part];
        if (CHOICES[part].includes(said)) (fresh.answers[item] ??= {})[part] = said;
      }
    }
  } catch {
    // nothing was kept, or not by this sheet
  }
  return fresh;
}
function keep() {
  try {
    localStorage.setItem(PLACE, JSON.stringify(kept));
    tell("kept in this browser", "good");
  } catch {
    tell("this browser keeps nothing: download before you close it", "warn");
  }
}
function tell(text, tone) {
  byId("saved").textContent = text;
  byId("saved").className = `pill scripted ${tone}`;
}

const asked = () => questions.filter((question) => question[1] === kept.language);
const answerOf = (item) => kept.answers[item] ?? {};
const isDone = (item) => PARTS.every((part) => answerOf(item)[part]);
const isBegun = (item) => PARTS.some((part) => answerOf(item)[part]);

function show(at, focus) {
  const here = asked();
  kept.at = Math.max(0, Math.min(here.length - 1, at));
  const [item, code, instruction, ...responses] = here[kept.at];
  const direction = languages[code][1];
  byId("number").textContent = `${kept.at + 1} of ${here.length}`;
  const say = (id, text) => Object.assign(byId(id), { textContent: text || "(nothing)", lang: code, dir: direction });
  say("asked", instruction);
  responses.forEach((response, side) => say(`response_${side + 1}`, response));
  for (const part of PARTS) {
    for (const choice of document.getElementsByName(part)) choice.checked = choice.value === answerOf(item)[part];
  }
  byId("before").disabled = kept.at === 0;
  byId("after").disabled = kept.at === here.length - 1;
  tally();
  const button = byId("places").children[kept.at];
  byId("places").scrollLeft = button.offsetLeft - byId("places").offsetLeft - byId("places").clientWidth / 2;
  if (focus) {
    byId("question").focus({ preventScroll: true });
    byId("question").scrollIntoView({ block: "start" });
  }
}
function tally() {
  const here = asked();
  const done = here.filter(([item]) => isDone(item)).length;
  const open = questions.filter(([item, code]) => !isDone(item) && questions.some((one) => one[1] === code && isBegun(one[0]))).length;
  byId("progress").max = here.length;
  byId("progress").value = done;
  byId("count").textContent = `${done} of ${here.length} in ${languages[kept.language][0]}`;
  const [item] = here[kept.at];
  byId("state").textContent = isDone(item) ? "answered" : isBegun(item) ? "not complete" : "open";
  byId("state").className = `pill ${isDone(item) ? "good" : isBegun(item) ? "warn" : ""}`;
  byId("left").textContent = open ? `${open} ${open === 1 ? "instruction is" : "instructions are"} not answered yet; a language counts when all of it is.` : done ? "Everything is answered. Thank you!" : "Nothing is answered yet.";
  [...byId("places").children].forEach((entry, place) => {
    const button = entry.firstChild;
    button.className = isDone(here[place][0]) ? "done" : isBegun(here[place][0]) ? "begun" : "";
    if (place === kept.at) button.setAttribute("aria-current", "step");
    else button.removeAttribute("aria-current");
  });
}
function open(code) {
  kept.language = code;
  byId("language").value = code;
  byId("places").replaceChildren(
    ...asked().map((_, place) => {
      const button = Object.assign(document.createElement("button"), { type: "button", textContent: place + 1 });
      button.addEventListener("click", () => show(place, true));
      const entry = document.createElement("li");
      entry.append(button);
      return entry;
    }),
  );
}

for (const field of document.querySelectorAll("[data-part]")) {
  field.addEventListener("change", (event) => {
    const [item] = asked()[kept.at];
    (kept.answers[item] ??= {})[field.dataset.part] = event.target.value;
    keep();
    tally();
  });
}
byId("before").addEventListener("click", () => show(kept.at - 1, true));
byId("after").addEventListener("click", () => show(kept.at + 1, true));
byId("language").addEventListener("change", (event) => {
  open(event.target.value);
  show(asked().findIndex(([item]) => !isDone(item)), false);
  keep();
});
byId("rater").value = kept.rater;
byId("rater").addEventListener("input", (event) => {
  kept.rater = event.target.value;
  keep();
});
byId("download").addEventListener("click", () => {
  if (!kept.rater.trim()) {
    tell("write your name first", "warn");
    byId("rater").focus();
    return;
  }
  const cell = (text) => `"${text.replaceAll('"', '""')}"`;
  const begun = questions.filter(([item]) => isBegun(item));
  const rows = begun.map(([item]) => [item, kept.rater.trim(), ...PARTS.map((part) => answerOf(item)[part] ?? "")].map(cell).join(","));
  const text = [["item", "rater", ...PARTS].join(","), ...rows, ""].join("\n");
  const link = document.createElement("a");
  link.href = URL.createObjectURL(new Blob([text], { type: "text/csv" }));
  link.download = `${sweep}-${kept.rater.trim().replace(/[^\p{L}\p{M}\p{N}]+/gu, "-")}.csv`;
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
});
open(kept.language);
show(kept.at, false);
