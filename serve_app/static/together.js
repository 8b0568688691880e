// Streams over as few connections as can be.  Runs in the worker that all tabs of a browser share, or in a page.

import { base } from "./base.js";

const MOST = 24; // in one connection: the server takes no more
const SOON_MS = 30; // a page opens several, one after the other
const PAUSE_MS = 500;
const LONGEST_PAUSE_MS = 5000;

// Opens streams by their paths; of each it tells what the server says: {kind, data, id}, and `open`, `lost`, `closed`.
export class Together {
  connections = [];

  open(path, tell) {
    let connection = this.connections.find((one) => one.channels.size < MOST);
    if (!connection) this.connections.push((connection = new Connection()));
    const channel = { path, tell };
    connection.add(channel);
    return { close: () => connection.remove(channel) };
  }
}

class Connection {
  channels = new Set();
  source = null;
  opening = null;
  pauseMs = PAUSE_MS;

  add(channel) {
    this.channels.add(channel);
    this.openSoon(SOON_MS);
  }

  remove(channel) {
    if (!this.channels.delete(channel)) return;
    if (this.channels.size) this.openSoon(SOON_MS);
    else this.close();
  }

  close() {
    clearTimeout(this.opening);
    this.opening = null;
    this.source?.close();
    this.source = null;
  }

  openSoon(afterMs) {
    clearTimeout(this.opening);
    this.opening = setTimeout(() => this.connect(), afterMs);
  }

  // What can be heard is told anew with each connection; each channel goes on where it was.
  connect() {
    this.close();
    const channels = [...this.channels];
    const paths = channels.map((one) => one.path).join("\n");
    const source = new EventSource(`${base}/training/streams?of=${encodeURIComponent(paths)}`);
    this.source = source;
    source.onopen = () => (this.pauseMs = PAUSE_MS);
    source.onmessage = (event) => this.hear(channels, JSON.parse(event.data));
    source.onerror = () => this.lose();
  }

  hear(channels, { of, kind, data, id, status }) {
    const channel = channels[of];
    if (!this.channels.has(channel)) return;
    if (id) channel.path = after(channel.path, id);
    if (kind === "closed") this.channels.delete(channel);
    channel.tell({ kind, data, id, status });
    if (!this.channels.size) this.close();
  }

  // The browser would connect again by itself, and hear everything from the first position on.
  lose() {
    this.close();
    for (const channel of this.channels) channel.tell({ kind: "lost" });
    if (!this.channels.size) return;
    this.openSoon(this.pauseMs * (0.5 + Math.random() / 2)); // not all browsers at once
    this.pauseMs = Math.min(2 * this.pauseMs, LONGEST_PAUSE_MS);
  }
}

function after(path, id) {
  const [before, query] = path.split("?");
  const wanted = new URLSearchParams(query);
  wanted.set("from", id);
  wanted.delete("tail_bytes");
  return `${before}?${wanted}`;
}
