// The list, live: rows change where they stand, new ones come in at the top, and nothing that a person
// has marked, typed or scrolled to is lost.  What the list is about stands in its URL.

import { announce, ask, counted, onKey, serverTime, tellAges } from "./app.js";
import { Freshness } from "./freshness.js";
import { Stream } from "./stream.js";
import { showTrends, trendsOf } from "./trends.js";
import { marksOn, tellMarks, unmark } from "./marks.js";

const list = document.getElementById("list");
const newer = document.getElementById("newer");
const pause = document.getElementById("pause");
const doubt = document.getElementById("doubt");
const fresh = new Freshness(document.querySelector("[data-freshness]"), () => source && again());

const listing = () => document.getElementById("listing").dataset;
const row = (jobId) => document.getElementById(`job-${jobId}`);
const rows = () => [...document.querySelectorAll("#rows > tr")];

// Loading anew: the part of the page that changes, as the server has it now

let loading = null;
let loadedAt = 0;
let isAskedAgain = false;

// Resolves to whether the list is as the server has it.  Calls that come meanwhile become one more.
function load() {
  if (loading) {
    isAskedAgain = true;
    return loading;
  }
  loading = loadOnce().finally(() => {
    loading = null;
    if (!isAskedAgain) return undefined;
    isAskedAgain = false;
    return load();
  });
  return loading;
}

async function loadOnce() {
  let text;
  try {
    const answer = await ask("/training" + location.search, { "HX-Request": "true" });
    text = await answer.text();
    if (!text.includes('id="listing"')) return false;
  } catch {
    return false; // The stream is opened anew until it is there; the age of the page tells of it.
  }
  Idiomorph.morph(list, text, { morphStyle: "innerHTML", callbacks: keeping });
  loadedAt = Date.now();
  waiting.clear();
  tellNewer();
  afterChange();
  fresh.heard();
  showTrends(rows().map((one) => one.dataset.job));
  return true;
}

// What belongs to the person and not to the server
const keeping = {
  beforeNodeMorphed(old, now) {
    if (old.type === "checkbox") now.checked = old.checked;
    return !old.classList?.contains("trend");
  },
};

function afterChange() {
  serverTime(listing().now);
  tellAges(list);
  tellMarks();
}

// One change

function parsed(html) {
  const template = document.createElement("template");
  template.innerHTML = html;
  return template.content.querySelector("tr");
}

function hear({ job, html }) {
  const now = parsed(html);
  const old = row(job);
  if (old) change(old, now);
  else if (belongs(now)) arrive(now);
}

function change(old, now) {
  if (Number(now.dataset.version) < Number(old.dataset.version)) return;
  const isNews = old.dataset.status !== now.dataset.status;
  const isGone = !hasStatus(now);
  keepDoubt(old, now);
  Idiomorph.morph(old, now, { callbacks: keeping });
  const changed = row(now.dataset.job);
  changed.classList.toggle("gone", isGone);
  if (isNews) flash(changed);
  tellAges(changed);
  if (now.dataset.status === "running" || isNews) trendsOf(now.dataset.job);
}

// What is told live was not compared with the database: a row that differed is doubted until it is compared again.
function keepDoubt(old, now) {
  if (!("stale" in old.dataset) || "stale" in now.dataset) return;
  now.dataset.stale = "";
  const told = old.querySelector(".doubt:not(.overdue)");
  if (told) now.querySelector(".state").append(told.cloneNode(true));
  soon(compareAgain, 10_000);
}

const compareAgain = () => load();

function flash(one) {
  one.classList.remove("fresh");
  void one.offsetWidth; // so that the animation begins again
  one.classList.add("fresh");
}

// Jobs that are not here

const waiting = new Set();

const hasStatus = (one) => !listing().status || listing().status.split(",").includes(one.dataset.status);

// As far as it can be told here; labels are searched by the server alone.
function belongs(one) {
  const { user, project, search } = listing();
  const { name, job } = one.dataset;
  const wanted = search.toLowerCase();
  return hasStatus(one)
    && (!user || user === one.dataset.user)
    && (!project || project === one.dataset.project)
    && (!wanted || name.toLowerCase().includes(wanted) || job.startsWith(wanted))
    && !isOnLaterPage(one);
}

function isOnLaterPage(one) {
  const last = rows().at(-1);
  return "top" in listing() && "more" in listing() && last && one.dataset.created < last.dataset.created;
}

function arrive(one) {
  const body = document.getElementById("rows");
  const isInPlace = "top" in listing() && body && scrollY < 200 && waiting.size === 0 && rows().length < 100;
  if (!isInPlace) {
    waiting.add(one.dataset.job);
    if ("top" in listing() && scrollY < 200) soon(load, rows().length ? 1000 : 100);
    else tellNewer();
    return;
  }
  body.insertBefore(one, rows().find((other) => other.dataset.created < one.dataset.created) ?? null);
  one.classList.add("fresh");
  tellAges(one);
  tellMarks();
}

function tellNewer() {
  newer.hidden = waiting.size === 0;
  const words = counted(waiting.size, "new job");
  if (waiting.size && newer.textContent !== words) {
    newer.textContent = words;
    announce(words);
  }
}

newer.addEventListener("click", () => {
  const url = new URL(location.href);
  if (url.searchParams.has("cursor")) {
    url.searchParams.delete("cursor");
    location.assign(url);
    return;
  }
  scrollTo({ top: 0 });
  load();
});

// At most once in a while, however often it is asked for
const soonest = new Map();
function soon(act, everyMs = 1000) {
  if (soonest.has(act)) return;
  soonest.set(act, setTimeout(() => {
    soonest.delete(act);
    if (!isPaused && !document.hidden) act();
  }, everyMs));
}

// Counts: those of everybody do not tell those of a filter, only that they may have changed.

let countsHeard = null;

function hearCounts(counts) {
  if ("filtered" in listing()) {
    const told = JSON.stringify(counts);
    // A second after a change, but not again within five, however busy the others are.  The first words may tell of one
    // that came between the page and its stream.
    if (countsHeard !== told) soon(load, Math.max(1000, loadedAt + 5000 - Date.now()));
    countsHeard = told;
    return;
  }
  let all = 0;
  for (const [status, count] of Object.entries(counts)) all += count;
  for (const one of list.querySelectorAll("[data-count]")) {
    const count = String(one.dataset.count === "all" ? all : counts[one.dataset.count] ?? 0);
    if (one.textContent !== count) one.textContent = count;
  }
}

// Proofs: when each job was last checked

function hearProofs(proofs) {
  for (const [jobId, html] of Object.entries(proofs)) {
    const cell = document.getElementById(`proof-${jobId}`);
    if (!cell) continue;
    Idiomorph.morph(cell, html, { morphStyle: "innerHTML" });
    tellAges(cell);
  }
}

// The stream

let source = null;
let isPaused = false;
let retryMs = 500;
let refusal = null; // why there is no stream for us

function listen() {
  stop();
  if (isPaused || document.hidden) return;
  const from = listing().from;
  source = new Stream("/training/live" + (from ? `?from=${encodeURIComponent(from)}` : ""));
  on("row", hear);
  on("counts", hearCounts);
  on("proofs", hearProofs);
  on("beat", () => {});
  on("anew", () => soon(load));
  on("doubt", ({ message }) => hearDoubt(message));
  source.addEventListener("error", again);
  source.addEventListener("closed", ({ words }) => {
    if (words) fresh.doubt((refusal = words));
    again();
  });
  source.addEventListener("open", () => {
    if (refusal) fresh.doubt((refusal = null));
  });
}

function on(name, act) {
  source.addEventListener(name, (event) => {
    retryMs = 500;
    act(JSON.parse(event.data));
    fresh.heard();
  });
}

function stop() {
  source?.close();
  source = null;
}

// Lost: what changed meanwhile is read once, then it is listened to again.
function again() {
  stop();
  const wait = retryMs * (0.5 + Math.random() / 2); // not all pages at once
  retryMs = Math.min(2 * retryMs, 5000);
  setTimeout(async () => {
    if (isPaused || document.hidden || source) return;
    if (await load()) listen();
    else again();
  }, wait);
}

function hearDoubt(message) {
  fresh.doubt(message);
  doubt.replaceChildren();
  if (message === null) {
    load();
    return;
  }
  const banner = document.createElement("section");
  banner.className = "banner bad";
  const heading = document.createElement("h2");
  heading.textContent = "The scheduler does not answer";
  const words = document.createElement("p");
  words.textContent = `${message}. What is shown may be old; it goes on by itself.`;
  banner.append(heading, words);
  doubt.append(banner);
}

async function goOn() {
  if (await load()) listen();
  else again();
}

pause.hidden = false;
pause.addEventListener("click", () => {
  isPaused = !isPaused;
  pause.textContent = isPaused ? "Go on" : "Pause";
  pause.setAttribute("aria-pressed", String(isPaused));
  fresh.paused(isPaused);
  announce(isPaused ? "Paused: the list stays as it is." : "Live again.");
  if (isPaused) stop();
  else goOn();
});
document.addEventListener("visibilitychange", () => {
  if (document.hidden) stop();
  else if (!isPaused) goOn();
});
addEventListener("pagehide", stop);
addEventListener("pageshow", (event) => {
  if (event.persisted && !isPaused) goOn();
});

// Searching while typing; each search has its URL.

const filters = document.getElementById("filters");
let typing = null;

function wantedUrl() {
  const fields = [...new FormData(filters)].filter(([, value]) => value.trim());
  const query = new URLSearchParams(fields).toString();
  return filters.getAttribute("action") + (query ? `?${query}` : "");
}

filters.addEventListener("submit", (event) => {
  event.preventDefault();
  clearTimeout(typing);
  location.assign(wantedUrl());
});
filters.addEventListener("input", () => {
  clearTimeout(typing);
  typing = setTimeout(() => {
    history.replaceState(null, "", wantedUrl());
    load();
  }, 250);
});

// Keyboard

const links = () => [...document.querySelectorAll("#rows .job-link")];

function move(by) {
  const all = links();
  const here = all.findIndex((link) => link.closest("tr").contains(document.activeElement));
  const next = here === -1 ? 0 : Math.max(0, Math.min(all.length - 1, here + by));
  all[next]?.focus();
}

const focused = () => document.activeElement?.closest("#rows > tr");

onKey("j", () => move(1));
onKey("k", () => move(-1));
onKey("r", () => load());
onKey("Enter", () => focused()?.querySelector(".job-link").click());
onKey("x", () => {
  const box = focused()?.querySelector('input[name="jobs"]');
  if (!box) return;
  box.checked = !box.checked;
  tellMarks();
});
onKey("Escape", unmark);

marksOn(load);
afterChange();
fresh.heard();
showTrends(rows().map((one) => one.dataset.job));
listen();
