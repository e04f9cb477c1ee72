"use strict";
const judged = JSON.parse(document.getElementById("judged").textContent);
const sides = ["left", "right", "equal", "neither"];
const keys = {l: "left", arrowleft: "left", r: "right", arrowright: "right", e: "equal", n: "neither", b: "back"};
const store = "textcl judge " + judged.name;
const total = judged.pairs.length;
const place = (id) => document.getElementById(id);
let answers = remembered();
if (judged.answers.length > answers.length) answers = judged.answers;

function remembered() {
  try {
    const found = JSON.parse(localStorage.getItem(store));
    if (Array.isArray(found) && found.length <= total && found.every((side) => sides.includes(side))) return found;
  } catch (error) { console.warn(error); }
  return [];
}

function remember() {
  try { localStorage.setItem(store, JSON.stringify(answers)); } catch (error) { console.warn(error); }
}

function file() {
  const rows = answers.map((side, number) => [judged.name, number + 1, side]);
  return [["set", "pair", "side"], ...rows].map((row) => row.join("\t") + "\n").join("");
}

function show() {
  const done = answers.length === total;
  place("progress").textContent = done ? `All ${total} pairs have an answer.` : `Pair ${answers.length + 1} of ${total}`;
  place("pair").hidden = done;
  place("end").hidden = !done;
  if (!done) {
    const pair = judged.pairs[answers.length];
    for (const part of ["query", "left", "right"]) place(part).textContent = pair[part];
  }
  for (const box of document.querySelectorAll(".result")) box.scrollTop = 0;
  window.scrollTo(0, 0);
  for (const button of document.querySelectorAll("button[data-answer]")) {
    button.disabled = button.dataset.answer === "back" ? answers.length === 0 : done;
  }
  const save = place("save");
  save.href = "data:text/tab-separated-values;charset=utf-8," + encodeURIComponent(file());
  save.textContent = `Save ${judged.file} (${answers.length} of ${total} answers)`;
}

function answer(side) {
  if (side === "back") answers.pop();
  else if (answers.length < total) answers.push(side);
  remember();
  show();
}

document.addEventListener("click", (event) => {
  const button = event.target.closest("button[data-answer]");
  if (button && !button.disabled) answer(button.dataset.answer);
});
document.addEventListener("keydown", (event) => {
  const side = keys[event.key.toLowerCase()];
  if (!side || event.repeat || event.ctrlKey || event.altKey || event.metaKey) return;
  event.preventDefault();
  answer(side);
});
show();
