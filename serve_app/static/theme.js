// Before the first paint: the theme that was chosen here, or the system's.
document.documentElement.dataset.js = "on";
try {
  const theme = localStorage.getItem("theme");
  if (theme === "dark" || theme === "light") document.documentElement.dataset.theme = theme;
} catch {
  // Storage may be forbidden; then the system decides.
}
