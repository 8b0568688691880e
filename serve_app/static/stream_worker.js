// Shared by all tabs of a browser: one connection to the server carries what they listen to.

import { Together } from "./together.js";

const GONE_AFTER_MS = 90_000; // a tab that crashed closes nothing; one that lives speaks at least once a minute

const together = new Together();

onconnect = ({ ports: [port] }) => {
  const streams = new Map();
  let heardAt = Date.now();
  port.onmessage = ({ data: { id, open, close } }) => {
    heardAt = Date.now();
    if (open) streams.set(id, together.open(open, (message) => port.postMessage({ to: id, ...message })));
    if (close) forget(id);
  };

  function forget(id) {
    streams.get(id)?.close();
    streams.delete(id);
  }

  setInterval(() => {
    if (Date.now() - heardAt > GONE_AFTER_MS) [...streams.keys()].forEach(forget);
  }, GONE_AFTER_MS / 3);
};
