// A page that htmx renews as a whole: how fresh it is, and no questions while nobody looks.

import { tellAges } from "./app.js";
import { Freshness } from "./freshness.js";

const fresh = new Freshness(document.querySelector("[data-freshness]"));
const renewed = document.querySelector("[data-renewing]");

renewed.addEventListener("htmx:beforeRequest", (event) => {
  if (document.hidden) event.preventDefault();
});
renewed.addEventListener("htmx:beforeSwap", (event) => {
  // A proxy's error page says nothing about the scheduler; the age says that nothing is heard.
  if (event.detail.xhr.status !== 200) event.detail.shouldSwap = false;
});
renewed.addEventListener("htmx:afterSwap", () => {
  fresh.heard();
  tellAges(renewed);
});
