// How fresh a live page is: "Updated 4 s ago", amber when nothing was heard for too long, and why.
// Each event of the stream counts, its heartbeats too: they say that nothing has changed.

import { duration } from "./app.js";

export class Freshness {
  constructor(element, staleAfterS = 10) {
    this.element = element;
    this.staleAfterS = staleAfterS;
    this.heardAt = Date.now();
    this.words = null;
    this.isPaused = false;
    setInterval(() => this.tell(), 1000);
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

  tell() {
    const ageS = (Date.now() - this.heardAt) / 1000;
    const isLate = ageS > this.staleAfterS && !this.isPaused;
    const age = `Updated ${duration(ageS)} ago`;
    let said = age;
    if (this.isPaused) said = `Paused, ${age.toLowerCase()}`;
    else if (this.words) said = `Not verified: ${this.words}`;
    else if (isLate) said = `${age}: the server is not heard`;
    this.element.classList.toggle("stale-age", isLate || Boolean(this.words));
    this.element.dataset.freshness = this.isPaused ? "paused" : isLate || this.words ? "stale" : "fresh";
    if (this.element.textContent !== said) this.element.textContent = said;
  }
}
