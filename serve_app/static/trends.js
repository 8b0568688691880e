// The small curves of the rows: loaded when the page is there, so that it never waits for them.

import { ask } from "./app.js";

// With 200 pages open this is 6 requests in a second, of the 200 or so that the proxy before this server can take;
// every 10 s it would be a tenth of all it can.  They come apart, as a change is heard by all pages at once.
const RENEWED_MS = 25_000;
const APART_MS = 10_000;
const changed = new Set();
let renewing = null;

// Draws those of the given jobs; one that cannot be had leaves its place empty.
export async function showTrends(jobIds) {
  if (!jobIds.length) return;
  let text;
  try {
    const answer = await ask(`/training/trends?jobs=${jobIds.join(",")}`);
    if (!answer.ok) return;
    text = await answer.text();
  } catch {
    return; // The stream tells that the server is away.
  }
  const template = document.createElement("template");
  template.innerHTML = text;
  for (const curve of template.content.querySelectorAll("[data-trend]")) {
    document.getElementById(`trend-${curve.dataset.trend}`)?.replaceChildren(...curve.childNodes);
  }
}

// The job has gone on: its curve is drawn again before long, with those of all others that have.
export function trendsOf(jobId) {
  changed.add(jobId);
  renewing ??= setTimeout(() => {
    renewing = null;
    const jobIds = [...changed];
    changed.clear();
    if (!document.hidden) showTrends(jobIds.slice(0, 50));
  }, RENEWED_MS + APART_MS * Math.random());
}
