// The page of a job, live: what has changed is asked for and morphed in, so that what was unfolded, marked or
// scrolled to stays as it is.

import { ask, tellAges } from "./app.js";
import "./acting.js";
import { startCharts } from "./charts.js";
import { Freshness } from "./freshness.js";
import { startLogs } from "./logs.js";
import { Stream } from "./stream.js";

const job = document.getElementById("job");
const jobId = job.dataset.job;
const fresh = new Freshness(job.querySelector("[data-freshness]"), goOn);
// A part that the server could not draw has nothing to go on from.
const without = { refresh() {}, changed() {}, pause() {}, resume() {} };
const started = (id, start) => (document.getElementById(id).matches(".banner") ? without : start(document.getElementById(id)));
const charts = started("charts", startCharts);
const logs = started("logs", startLogs);

const PAUSE_MS = 1000;
const PROVED_EVERY_MS = 10000;
const OVER = ["completed", "failed", "cancelled"];

// What a person did to the page is theirs: unfolded details, a chosen checkpoint, the answer to an action.
const morphing = {
  morphStyle: "outerHTML",
  callbacks: {
    beforeNodeMorphed: (node) => !(node.dataset && "keep" in node.dataset),
    beforeAttributeUpdated: (name, node) =>
      !(name === "open" && node.tagName === "DETAILS") &&
      !(name === "checked" && node.type === "radio") &&
      !(name === "disabled" && node.closest(".htmx-request")),
  },
};

let seen = { version: Number(now().dataset.version), saved: undefined };
let wanted = new Set();
let loading = false;
let loadedAt = Date.now();
let doubt = null; // why the registry is not heard, as the stream says; the page may have come from the database

function now() {
  return document.getElementById("job-now");
}

function isOver() {
  return OVER.includes(now().dataset.status);
}

async function load(part) {
  const answer = await ask(`/training/monitor?jobId=${jobId}&part=${part}`, { "HX-Request": "true" });
  if (!answer.ok) throw new Error((await answer.json().catch(() => null))?.detail ?? `the server answers ${answer.status}`);
  const old = document.getElementById(`job-${part}`);
  for (const node of Idiomorph.morph(old, await answer.text(), morphing)) {
    if (node.nodeType === Node.ELEMENT_NODE) htmx.process(node);
  }
}

// At most one at a time, and at most one in a second; what is wanted meanwhile is loaded next.
async function refresh() {
  if (loading || !wanted.size) return;
  loading = true;
  const parts = [...wanted];
  wanted = new Set();
  try {
    for (const part of parts) await load(part);
    loadedAt = Date.now();
    document.title = document.title.replace(/: [a-z]+$/, `: ${now().dataset.status}`);
    tellAges();
    fresh.doubt(doubt);
    fresh.heard();
  } catch (error) {
    for (const part of parts) wanted.add(part);
    fresh.doubt(error.message);
  }
  setTimeout(() => {
    loading = false;
    if (!document.hidden) refresh();
  }, PAUSE_MS);
}

function want(...parts) {
  for (const part of parts) wanted.add(part);
  refresh();
}

// The stream

let stream = null;
let position = job.dataset.from;

function listen() {
  if (stream || document.hidden) return;
  stream = new Stream(`/training/monitor/live?jobId=${jobId}${position ? `&from=${position}` : ""}`);
  stream.addEventListener("changed", (event) => {
    heard(event);
    const data = JSON.parse(event.data);
    const isNew = data.version !== seen.version || data.saved !== seen.saved;
    seen = data;
    want("now", ...(isNew ? ["past"] : []));
    charts.refresh();
    logs.changed(data);
  });
  stream.addEventListener("anew", (event) => {
    heard(event);
    everything();
  });
  stream.addEventListener("beat", (event) => {
    heard(event);
    const isOld = Date.now() - loadedAt > PROVED_EVERY_MS;
    if (wanted.size || (isOld && !isOver())) want("now");
  });
  stream.addEventListener("doubt", (event) => {
    doubt = JSON.parse(event.data).message;
    fresh.heard();
    fresh.doubt(doubt);
    want("now", ...(doubt ? [] : ["past"]));
  });
  stream.addEventListener("closed", ({ words }) => {
    hush();
    if (words) fresh.doubt(words);
    setTimeout(listen, 2000);
  });
}

function heard(event) {
  if (event.lastEventId) position = event.lastEventId;
  fresh.heard();
}

function hush() {
  stream?.close();
  stream = null;
}

function everything() {
  want("now", "past");
  charts.refresh();
}

// A browser has few connections to a server: a page that nobody sees holds none.
document.addEventListener("visibilitychange", () => {
  if (document.hidden) {
    hush();
    logs.pause();
    return;
  }
  goOn();
});

function goOn() {
  hush();
  logs.pause();
  everything();
  listen();
  logs.resume();
}

// An answer in the card, or in the dialog, says that something has changed; the stream may be slower.
document.addEventListener("htmx:afterRequest", (event) => {
  if (event.detail.requestConfig?.verb === "post") want("now", "past");
});
addEventListener("pagehide", hush);

listen();
