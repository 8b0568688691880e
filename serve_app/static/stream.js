// A stream of the server, as `EventSource` has it, over the connection that all tabs of this browser share.

import { Together } from "./together.js";

const ALIVE_EVERY_MS = 20_000;

let worker = null; // the shared one; null where there is none, and this page has a connection of its own
let alone = null;
let hasConnected = false;
let nextId = 1;
const streams = new Map();

function start() {
  try {
    worker = new SharedWorker(new URL("./stream_worker.js", import.meta.url), { type: "module" });
  } catch {
    return; // not every browser has them
  }
  worker.onerror = goAlone;
  worker.port.onmessage = ({ data }) => {
    if (data.kind !== "lost") hasConnected = true;
    else if (!hasConnected) return goAlone(); // it may be denied what a page is granted: a password, for one
    streams.get(data.to)?.hear(data);
  };
  setInterval(() => worker?.port.postMessage({}), ALIVE_EVERY_MS);
}

function goAlone() {
  if (!worker) return;
  for (const id of streams.keys()) worker.port.postMessage({ id, close: true });
  worker = null;
  for (const [id, stream] of streams) stream.link = linkTo(id, stream);
}

function linkTo(id, stream) {
  if (!worker) {
    alone ??= new Together();
    return alone.open(stream.path, (message) => stream.hear(message));
  }
  const { port } = worker;
  port.postMessage({ id, open: stream.path });
  return { close: () => port.postMessage({ id, close: true }) };
}

export class Stream extends EventTarget {
  // *path* is ours, without what a proxy has before it.
  constructor(path) {
    super();
    this.path = path;
    this.isClosed = false;
    this.id = nextId++;
    streams.set(this.id, this);
    this.link = linkTo(this.id, this);
  }

  // `error` where the connection is lost, and made again by itself; `closed`, with status and words, where it is not.
  hear({ kind, data, id, status }) {
    if (this.isClosed) return;
    if (kind === "closed") {
      this.close();
      this.dispatchEvent(Object.assign(new Event("closed"), { status, words: data }));
    } else if (kind === "open") this.dispatchEvent(new Event("open"));
    else if (kind === "lost") this.dispatchEvent(new Event("error"));
    else this.dispatchEvent(new MessageEvent(kind, { data, lastEventId: id ?? "" }));
  }

  close() {
    if (this.isClosed) return;
    this.isClosed = true;
    streams.delete(this.id);
    this.link.close();
  }
}

start();
