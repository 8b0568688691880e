// Marked rows, and what may be asked of all of them at once.

import { announce, counted } from "./app.js";
import { base } from "./base.js";

const form = document.getElementById("marks");
const bulk = document.getElementById("bulk");
const dialog = document.getElementById("dialog");

const boxes = () => [...document.querySelectorAll('#rows input[name="jobs"]')];
const marked = () => boxes().filter((box) => box.checked);

export function tellMarks() {
  const all = boxes();
  const count = marked().length;
  bulk.classList.toggle("some", count > 0);
  document.getElementById("marked").textContent = `${counted(count, "job")} marked`;
  for (const box of all) box.closest("tr").classList.toggle("is-marked", box.checked);
  const head = document.getElementById("mark-all");
  if (!head) return;
  head.checked = count > 0 && count === all.length;
  head.indeterminate = count > 0 && count < all.length;
}

function markAll(isMarked) {
  for (const box of boxes()) box.checked = isMarked;
  tellMarks();
}

export function unmark() {
  if (marked().length) announce("No job is marked any more.");
  markAll(false);
}

// *whenDone* is called when something may have been done to the marked jobs.
export function marksOn(whenDone) {
  let hasActed = false;
  form.addEventListener("change", (event) => {
    if (event.target.id === "mark-all") markAll(event.target.checked);
    else tellMarks();
  });
  document.getElementById("unmark").addEventListener("click", unmark);
  form.addEventListener("submit", (event) => {
    event.preventDefault();
    const ids = marked().map((box) => box.value);
    if (ids.length) ask(event.submitter.value, ids);
  });
  document.addEventListener("htmx:afterRequest", ({ detail }) => {
    hasActed ||= detail.successful && detail.requestConfig.verb === "post" && dialog.contains(detail.elt);
  });
  dialog.addEventListener("close", () => {
    if (!hasActed) return;
    hasActed = false;
    unmark();
    whenDone();
  });
}

function ask(action, ids) {
  const back = form.elements.back.value;
  const query = new URLSearchParams({ action, jobs: ids.join(","), back });
  htmx.ajax("GET", `${base}/training/confirm?${query}`, { target: "#dialog-body" });
}
