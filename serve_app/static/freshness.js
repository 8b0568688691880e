// How fresh a live page is: "Updated 4 s ago", amber when nothing was heard for too long, and why.
// Each event of the stream counts, its heartbeats too: they say that nothing has changed.
// A connection may be dead without a word, as after a night with the lid closed: then it is to be opened anew.

import { duration } from "./app.js";

const STALE_AFTER_S = 10;
const SILENT_AFTER_S = 20;

export class Freshness {
  // *whenSilent* is called when nothing has come for long, and again as long as nothing comes.
  constructor(element, whenSilent = () => {}) {
    this.element = element;
    this.whenSilent = whenSilent;
    this.heardAt = this.triedAt = Date.now();
    this.words = null;
    this.isPaused = false;
    setInterval(() => {
      this.tell();
      this.listenAgain();
    }, 1000);
    this.tell();
  }

  // Something came: the page is as the server has it.
  heard() {
    this.heardAt = Date.now();
    this.tell();
  }

  // Why what is shown may be old; null: it is not any more.
  doubt(words) {
    this.words = words;
    this.tell();
  }

  paused(isPaused) {
    this.isPaused = isPaused;
    if (!isPaused) this.heardAt = Date.now();
    this.tell();
  }

  listenAgain() {
    const since = Math.max(this.heardAt, this.triedAt);
    if (this.isPaused || document.hidden || Date.now() - since < SILENT_AFTER_S * 1000) return;
    this.triedAt = Date.now();
    this.whenSilent();
  }

  tell() {
    const ageS = (Date.now() - this.heardAt) / 1000;
    const isLate = ageS > STALE_AFTER_S && !this.isPaused;
    const age = `Updated ${duration(ageS)} ago`;
    let text = age;
    if (this.isPaused) text = `Paused, ${age.toLowerCase()}`;
    else if (this.words) text = `Not verified: ${this.words}`;
    else if (isLate) text = `${age}: the server is not heard`;
    this.element.classList.toggle("stale-age", isLate || Boolean(this.words));
    this.element.dataset.freshness = this.isPaused ? "paused" : isLate || this.words ? "stale" : "fresh";
    if (this.element.textContent !== text) this.element.textContent = text;
  }
}
