// A form that acts on jobs says in itself when its answer is lost.

const LOST =
  "No answer came: the server cannot be reached, and it is not known whether it was done. Look how the job stands before you ask again.";

function tell(event, words) {
  const lost = event.target.closest?.("form[data-acts]")?.querySelector(".lost");
  if (!lost) return;
  lost.textContent = words;
  lost.hidden = !words;
}
document.addEventListener("htmx:sendError", (event) => tell(event, LOST));
document.addEventListener("htmx:timeout", (event) => tell(event, LOST));
document.addEventListener("htmx:beforeRequest", (event) => tell(event, ""));
