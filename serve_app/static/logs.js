// The log of a rank, live: followed, searched, and never more of it than a browser likes to hold.

import { announce } from "./app.js";
import { base } from "./base.js";
import { Stream } from "./stream.js";

const MOST_LINES = 5000;
const MOST_CHARS = 2_000_000;
const MOST_IN_LINE = 20_000;
const ESCAPES = /\x1b(?:\[[0-?]*[ -/]*[@-~]|\][^\x07\x1b]*(?:\x07|\x1b\\)?|[@-Z\\^_])/g;
const TAIL_BYTES = 65536;

export function startLogs(section) {
  const by = (name) => section.querySelector(`#logs-${name}`);
  const lines = by("lines");
  const [rank, attempt, search, follow, state] = ["rank", "attempt", "search", "follow", "state"].map(by);
  const jobId = section.dataset.job;
  let stream = null;
  let position = null;
  let lastAttempt = 0;
  let isOver = false;
  let open = null; // the line whose end has not come yet
  let lastOffset = 0;
  let chars = 0;
  let retryMs = 1000;
  let retrying = null;

  // The stream

  function listen() {
    stop();
    const query = new URLSearchParams({ jobId, rank: rank.value });
    if (attempt.value) query.set("attempt", attempt.value);
    if (position) query.set("from", position);
    else query.set("tail_bytes", TAIL_BYTES);
    isOver = false;
    say("connecting…");
    stream = new Stream(`/training/logs/stream?${query}`);
    const on = (name, act) =>
      stream.addEventListener(name, (event) => {
        if (event.lastEventId) position = event.lastEventId;
        act(JSON.parse(event.data));
      });
    on("log", append);
    on("attempt", began);
    on("waiting", (data) => say(`waits: ${data.reason.message}`));
    on("doubt", (data) => say(data.message ? `not heard: ${data.message}` : "live"));
    on("end", (data) => {
      isOver = true;
      stop();
      say(`ended: ${data.reason.message}`);
      announce(`The log has ended: ${data.reason.message}`);
    });
    stream.addEventListener("open", () => {
      retryMs = 1000;
      say("live");
    });
    stream.addEventListener("error", () => say("the server is not heard; trying again"));
    stream.addEventListener("closed", ({ status, words }) => {
      stop();
      refused(status, words);
    });
  }

  // All was sent before (204), it is refused until the job changes, or there is no place for it, or nobody for now.
  function refused(status, words) {
    const isFinal = status === 204 || (status >= 400 && status < 500 && status !== 429);
    isOver = isFinal;
    if (status === 204) return say("");
    say(words ? `refused: ${words}` : "the server is not heard; trying again");
    if (!isFinal && !document.hidden) later();
  }

  function later() {
    retrying = setTimeout(listen, retryMs);
    retryMs = Math.min(2 * retryMs, 10_000);
  }

  function stop() {
    clearTimeout(retrying);
    stream?.close();
    stream = null;
  }

  function anew() {
    position = null;
    lastAttempt = 0;
    open = null;
    chars = 0;
    lines.replaceChildren();
    const chosen = attempt.value ? `&attempt=${attempt.value}` : "";
    by("download").href = `${base}/training/logs/download?jobId=${jobId}&rank=${rank.value}${chosen}`;
    listen();
  }

  function say(words) {
    state.textContent = words;
  }

  // Lines

  function began(data) {
    if (data.state === "ended") return note(`attempt ${data.attempt} ended${data.reason ? `: ${data.reason.message}` : ""}`);
    if (data.attempt > Math.max(lastAttempt, 1)) note(`attempt ${data.attempt}`);
    lastAttempt = data.attempt;
    offer(data.attempt);
  }

  function offer(number) {
    if ([...attempt.options].some((option) => option.value === String(number))) return;
    attempt.options[0].after(new Option(number, number));
  }

  function note(words) {
    open = null;
    const line = lineOf(`── ${words} ──`);
    line.classList.add("note");
    lines.append(line);
    settle();
  }

  function append(data) {
    const parts = data.text.split("\n");
    const isComplete = parts.at(-1) === "";
    if (isComplete) parts.pop();
    const added = document.createDocumentFragment();
    parts.forEach((text, index) => {
      if (index === 0 && open && data.offset === lastOffset) {
        write(open, open.printed + text);
        return;
      }
      open = lineOf(text);
      added.append(open);
    });
    if (isComplete) open = null;
    lastOffset = data.next_offset;
    lines.append(added);
    settle();
  }

  function lineOf(text) {
    const line = document.createElement("div");
    line.className = "line";
    write(line, text);
    return line;
  }

  // As a terminal would leave it: without colours, and of what was written over, as a progress bar is, the last.
  function write(line, text) {
    const before = line.textContent.length;
    const bare = text.replace(ESCAPES, "").replace(/\r$/, "");
    const last = bare.slice(bare.lastIndexOf("\r") + 1);
    line.printed = text.slice(-MOST_IN_LINE - 1);
    line.textContent = last.length > MOST_IN_LINE ? `… ${last.slice(-MOST_IN_LINE)}` : last;
    chars += line.textContent.length - before;
    sift(line);
  }

  function settle() {
    while (lines.childElementCount > MOST_LINES || (chars > MOST_CHARS && lines.childElementCount > 1)) {
      chars -= lines.firstElementChild.textContent.length;
      lines.firstElementChild.remove();
    }
    lines.dataset.lines = lines.childElementCount;
    if (search.value) tellFound();
    if (follow.checked) toEnd();
  }

  // Search: only the lines that have the words

  function sift(line) {
    line.hidden = Boolean(search.value) && !line.textContent.toLowerCase().includes(search.value.toLowerCase());
  }

  function tellFound() {
    const all = lines.querySelectorAll(".line").length;
    const shown = lines.querySelectorAll(".line:not([hidden])").length;
    say(`${shown} of ${all} lines`);
  }

  search.addEventListener("input", () => {
    lines.querySelectorAll(".line").forEach(sift);
    if (search.value) {
      tellFound();
      announce(state.textContent);
    } else say(isOver ? "" : "live");
    if (follow.checked) toEnd();
  });

  // Following: scrolling up lets go, the box takes hold again

  let isOurs = false;

  function toEnd() {
    if (lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 1) return;
    isOurs = true;
    lines.scrollTop = lines.scrollHeight;
  }

  lines.addEventListener("scroll", () => {
    if (isOurs) {
      isOurs = false;
      return;
    }
    follow.checked = lines.scrollTop + lines.clientHeight >= lines.scrollHeight - 8;
  });
  follow.addEventListener("change", () => follow.checked && toEnd());
  rank.addEventListener("change", anew);
  attempt.addEventListener("change", anew);
  by("form").addEventListener("submit", (event) => {
    event.preventDefault();
    anew();
  });
  by("show").hidden = true;
  by("search-label").hidden = by("follow-label").hidden = false;
  anew();

  return {
    // A job that goes on is followed again.
    changed(data) {
      if (isOver && !attempt.value && (data.attempt > lastAttempt || ["running", "queued"].includes(data.status))) listen();
    },
    pause: stop,
    resume() {
      if (!isOver) listen();
    },
  };
}
