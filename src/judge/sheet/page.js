"use strict";
(() => {
  const sheet = document.body.dataset.sheet;
  const items = [...document.querySelectorAll("section.item")];
  const choices = [...document.querySelectorAll("button.choice")];
  const rater = document.getElementById("rater");
  const message = document.getElementById("message");
  const memory = "qstar-sheet-" + sheet;
  const answers = new Map();
  let place = 0;
  let downloaded = true;
  // Set between an answer and the next pair: a second key in that time would answer the same pair again.
  let pending = 0;

  // What the browser has kept, as far as it makes sense.
  try {
    const kept = JSON.parse(localStorage.getItem(memory) || "{}");
    for (const [item, answer] of Object.entries(kept.answers || {})) {
      const known = Number.isInteger(+item) && +item >= 1 && +item <= items.length;
      if (known && ["1", "2", "tie"].includes(answer)) answers.set(+item, answer);
    }
    if (typeof kept.rater === "string") rater.value = kept.rater;
    const open = items.findIndex((_, index) => !answers.has(index + 1));
    place = open < 0 ? 0 : open;
  } catch (error) {
    // A browser that keeps nothing says so when the first answer is kept.
  }

  function keep() {
    downloaded = false;
    try {
      localStorage.setItem(memory, JSON.stringify({ rater: rater.value, answers: Object.fromEntries(answers) }));
    } catch (error) {
      message.textContent = "This browser keeps nothing: download your answers before you close the page.";
    }
  }

  function show() {
    items.forEach((item, index) => { item.hidden = index !== place; });
    const answer = answers.get(place + 1);
    choices.forEach((button) => button.setAttribute("aria-pressed", String(button.dataset.answer === answer)));
    document.getElementById("back").disabled = place === 0;
    document.getElementById("next").disabled = place === items.length - 1;
    document.getElementById("done").textContent = answers.size + " of " + items.length + " answered";
    document.getElementById("progress").value = answers.size;
  }

  function move(step) {
    clearTimeout(pending);
    pending = 0;
    place = Math.min(Math.max(place + step, 0), items.length - 1);
    show();
    window.scrollTo(0, 0);
  }

  function choose(answer) {
    if (pending) return;
    answers.set(place + 1, answer);
    message.textContent = "";
    keep();
    const open = items.findIndex((_, index) => !answers.has(index + 1));
    if (open < 0) message.textContent = "All pairs are answered: download your answers.";
    show();
    if (place < items.length - 1) pending = setTimeout(() => move(1), 120);
  }

  function download(type, ending, text) {
    const name = rater.value.trim();
    if (!name) {
      message.textContent = "Write your name first.";
      rater.focus();
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(new Blob([text(name)], { type }));
    const plain = name.normalize("NFKD").replace(/[^A-Za-z0-9]+/g, "-").replace(/^-+|-+$/g, "") || "rater";
    link.download = "answers-" + plain + "." + ending;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 10000);
    downloaded = true;
    const open = items.length - answers.size;
    message.textContent = open ? "Downloaded; " + open + " pairs are still open." : "";
  }

  function csv(name) {
    // A name that a spreadsheet would take for a formula begins with an apostrophe.
    const guarded = /^[\s]*[=+\-@\uFF1D\uFF0B\uFF0D\uFF20]/.test(name) ? "'" + name : name;
    const cell = (text) => '"' + text.replaceAll('"', '""') + '"';
    const rows = [...answers].sort((x, y) => x[0] - y[0]).map(([item, answer]) => [cell(sheet), item, answer, cell(guarded)]);
    return [["sheet", "item", "answer", "rater"], ...rows].map((row) => row.join(",") + "\r\n").join("");
  }

  function json(name) {
    return JSON.stringify({ sheet, rater: name, answers: Object.fromEntries(answers) }, null, 1) + "\n";
  }

  choices.forEach((button) => button.addEventListener("click", () => choose(button.dataset.answer)));
  document.getElementById("back").addEventListener("click", () => move(-1));
  document.getElementById("next").addEventListener("click", () => move(1));
  document.getElementById("csv").addEventListener("click", () => download("text/csv", "csv", csv));
  document.getElementById("json").addEventListener("click", () => download("application/json", "json", json));
  rater.addEventListener("input", keep);
  document.addEventListener("keydown", (event) => {
    if (event.target === rater || event.ctrlKey || event.metaKey || event.altKey || event.repeat) return;
    const keys = { 1: () => choose("1"), 2: () => choose("2"), 0: () => choose("tie"),
      ArrowLeft: () => move(-1), ArrowRight: () => move(1) };
    const action = Object.hasOwn(keys, event.key) ? keys[event.key] : null;
    if (!action) return;
    event.preventDefault();
    action();
  });
  window.addEventListener("beforeunload", (event) => {
    if (answers.size && !downloaded) event.preventDefault();
  });
  show();
})();
