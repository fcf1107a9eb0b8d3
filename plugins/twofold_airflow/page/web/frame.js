// Inside the UI's frame: its light or dark, and links that lead out of the frame.
//
// The frame's sandbox lets no link in it open a window or leave the frame. It is of the same origin, though, so the
// UI's own document can follow a link for us. Outside a frame none of this does anything.

function outer() {
  try {
    return window.parent !== window && window.parent.document ? window.parent : null;
  } catch {
    return null; // framed by another origin
  }
}

function followTheme(root) {
  const apply = () => {
    const dark = root.classList.contains("dark") || root.style.colorScheme === "dark";
    const light = root.classList.contains("light") || root.style.colorScheme === "light";
    document.documentElement.dataset.theme = dark ? "dark" : light ? "light" : "";
  };
  new MutationObserver(apply).observe(root, { attributes: true, attributeFilter: ["class", "style"] });
  apply();
}

function followLink(ui, event) {
  const link = event.target.closest?.("a[data-out]");
  if (!link || event.button !== 0) return;
  event.preventDefault();
  const double = ui.document.createElement("a");
  double.href = link.href;
  if (link.target === "_blank" || event.ctrlKey || event.metaKey) {
    double.target = "_blank";
    double.rel = "noopener";
  }
  double.click();
}

const ui = outer();
if (ui) {
  followTheme(ui.document.documentElement);
  document.addEventListener("click", (event) => followLink(ui, event));
}
