// What every page has: theme, keyboard, dialogs, ages that go on counting, and answers that are not taken for more.
// Nothing here is needed to read a page or to act: without it links lead to pages, and forms are sent.

import { base, version } from "./base.js";

const dialog = document.getElementById("dialog");
const help = document.getElementById("help");

export function announce(words) {
  document.getElementById("announce").textContent = words;
}

// `1 job`, `2 jobs`
export function counted(number, what) {
  return `${number} ${what}${number === 1 ? "" : "s"}`;
}

export function duration(seconds) {
  const whole = Math.max(0, Math.floor(seconds));
  for (const [unit, length] of [["d", 86400], ["h", 3600], ["min", 60]]) {
    if (whole >= 2 * length) return `${Math.floor(whole / length)} ${unit}`;
  }
  return `${whole} s`;
}

// Ages

let skew = 0; // milliseconds that the server's clock is ahead of ours
export function serverTime(isoNow, atMs = Date.now()) {
  skew = Date.parse(isoNow) - atMs;
}
const came = performance.getEntriesByType("navigation")[0];
serverTime(document.body.dataset.now, came ? performance.timeOrigin + came.responseStart : Date.now());

export function tellAges(root = document) {
  for (const time of root.querySelectorAll("time[data-ago]")) {
    const words = `${duration((Date.now() + skew - Date.parse(time.dateTime)) / 1000)} ago`;
    if (time.textContent !== words) time.textContent = words;
  }
  root.querySelectorAll("time[datetime]:hover").forEach(tellMoment); // a part that came live has the server's title again
}
setInterval(() => tellAges(), 1000);

// Where the pointer is, the moment itself: as the clock on the wall has it, and as the logs have it.
function tellMoment(time) {
  const moment = new Date(time.dateTime);
  time.title = `${moment.toLocaleString()} here, ${moment.toISOString().slice(0, 19).replace("T", " ")} UTC`;
}
document.addEventListener("mouseover", (event) => {
  const time = event.target.closest?.("time[datetime]");
  if (time) tellMoment(time);
});

// Theme

const themes = ["auto", "light", "dark"];
function showTheme(button) {
  button.textContent = `Theme: ${document.documentElement.dataset.theme ?? "auto"}`;
}
for (const button of document.querySelectorAll("[data-theme-switch]")) {
  button.hidden = false;
  showTheme(button);
  button.addEventListener("click", () => {
    const root = document.documentElement;
    const next = themes[(themes.indexOf(root.dataset.theme ?? "auto") + 1) % themes.length];
    if (next === "auto") delete root.dataset.theme;
    else root.dataset.theme = next;
    try {
      localStorage.setItem("theme", next);
    } catch {
      // It holds for this page then.
    }
    showTheme(button);
    document.dispatchEvent(new CustomEvent("theme"));
  });
}

// Asking the server

const PATIENCE_MS = 15000;
const PAGES = "Scheduler-Pages"; // a header of all that our pages and their parts are made of

// *path* is ours.  Given up in time: an answer that never comes must not keep a page from asking again.
export async function ask(path, headers = {}) {
  const answer = await fetch(base + path, { headers, signal: AbortSignal.timeout(PATIENCE_MS) });
  isOurs(answer.headers.get(PAGES));
  return answer;
}

// Whether it has the header; that of a later server is told of, for this page has the scripts of the one before.
function isOurs(found) {
  const notice = document.getElementById("renewed");
  if (found && found !== version && notice.hidden) {
    notice.hidden = false;
    announce("The server has been renewed since this page was loaded.");
  }
  return Boolean(found);
}

// The page of a proxy, or a problem document, is no part of ours: its words are shown, as text.
document.addEventListener("htmx:beforeSwap", ({ detail }) => {
  if (!detail.shouldSwap || isOurs(detail.xhr.getResponseHeader(PAGES))) return;
  detail.target = document.getElementById("dialog-body");
  detail.swapOverride = "innerHTML";
  detail.serverResponse = refusal(detail.xhr).outerHTML;
});

function refusal(xhr) {
  const section = document.createElement("section");
  const add = (name, words, attributes) => {
    const part = Object.assign(document.createElement(name), { textContent: words });
    for (const [key, value] of Object.entries(attributes)) part.setAttribute(key, value);
    section.append(part);
  };
  add("h2", "Not done, as far as is known", { id: "dialog-title" });
  add("p", messageIn(xhr), { role: "alert" });
  add("button", "Close", { type: "button", "data-close": "" });
  return section;
}

function messageIn(xhr) {
  try {
    return JSON.parse(xhr.responseText).detail;
  } catch {
    return `The server, or a proxy before it, answers ${xhr.status}. Look how things stand before you try again.`;
  }
}

// Dialogs: whatever is loaded into the dialog's body is shown in it.

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "dialog-body") return;
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("[autofocus], button, a[href]")?.focus();
});
document.addEventListener("htmx:sendError", () => announce("The server cannot be reached; look how things stand before you try again."));
document.addEventListener("click", (event) => {
  const around = event.target.closest("[data-close]")?.closest("dialog");
  if (around) {
    event.preventDefault(); // on a page of its own the link leads back
    around.close();
  }
  if (event.target.closest("[data-help]")) help.showModal();
});
for (const button of document.querySelectorAll("[data-help]")) button.hidden = false;

// Keyboard: pages say what a key does with `onKey`.

const keys = new Map();
export function onKey(key, act) {
  keys.set(key, act);
}
onKey("?", () => help.showModal());
onKey("r", () => location.reload());
onKey("/", () => document.querySelector("input[type=search]")?.focus());

// What is called a button is pressed like one.
document.addEventListener("keydown", (event) => {
  if (event.key !== " " || !event.target.matches?.("a[role=button]")) return;
  event.preventDefault();
  event.target.click();
});

function isTyping(target) {
  return target.closest?.("input:not([type=checkbox]), textarea, select, [contenteditable]");
}
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if (isTyping(event.target)) {
    if (event.key === "Escape") event.target.blur();
    return;
  }
  if (document.querySelector("dialog[open]") || !keys.has(event.key)) return;
  if (event.key === "Enter" && event.target.closest("a, button, summary, input")) return;
  event.preventDefault();
  keys.get(event.key)(event);
});
