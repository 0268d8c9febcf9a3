// A link into a closed part opens it; on paper all is open.
function open(part) {
  for (let at = part; at; at = at.parentElement) if (at.tagName === "DETAILS") at.open = true;
}
function follow() {
  const part = location.hash && document.getElementById(location.hash.slice(1));
  if (part) open(part);
}
addEventListener("hashchange", follow);
addEventListener("beforeprint", () => document.querySelectorAll("details").forEach((part) => (part.open = true)));
follow();
