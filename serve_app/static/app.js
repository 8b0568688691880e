// What every page has: theme, keyboard, dialogs, and ages that go on counting.
// Nothing here is needed to read a page or to act: without it links lead to pages, and forms are sent.

const dialog = document.getElementById("dialog");
const help = document.getElementById("help");

export function announce(words) {
  document.getElementById("announce").textContent = words;
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
export function serverTime(isoNow) {
  skew = Date.parse(isoNow) - Date.now();
}

export function tellAges(root = document) {
  for (const time of root.querySelectorAll("time[data-ago]")) {
    const words = `${duration((Date.now() + skew - Date.parse(time.dateTime)) / 1000)} ago`;
    if (time.textContent !== words) time.textContent = words;
  }
}
setInterval(tellAges, 1000);

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

// Dialogs: whatever is loaded into the dialog's body is shown in it.

document.addEventListener("htmx:afterSwap", (event) => {
  if (event.detail.target.id !== "dialog-body") return;
  if (!dialog.open) dialog.showModal();
  dialog.querySelector("[autofocus], button, a[href]")?.focus();
});
document.addEventListener("htmx:sendError", () => announce("The server cannot be reached; look how things stand before you try again."));
document.addEventListener("click", (event) => {
  if (event.target.closest("[data-close]")) {
    event.preventDefault();
    event.target.closest("dialog")?.close();
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
