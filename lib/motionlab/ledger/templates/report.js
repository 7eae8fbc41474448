// Filters, search, light and dark, videos. Without it every page reads as it stands.
"use strict";
const form = document.querySelector("form.filters");
const items = [...document.querySelectorAll("main [data-verdict]")];
const texts = new Map(items.map(item => [item, item.textContent.toLowerCase()]));
const theme = document.querySelector("button.theme");

function asked() {  // what the filters say, without those that are empty
  return new URLSearchParams([...new FormData(form)].filter(([, value]) => value.trim()));
}

function apply() {  // show the claims that pass, and where they are
  const wanted = asked(), words = (wanted.get("q") || "").toLowerCase().split(/\s+/).filter(Boolean);
  const passes = item => words.every(word => texts.get(item).includes(word)) &&
    [...wanted].every(([name, value]) => name === "q" || item.dataset[name] === value);
  for (const item of items) item.hidden = !passes(item);
  for (const one of document.querySelectorAll("main .group, main .rest")) {
    const inside = items.filter(item => one.contains(item));
    if (!inside.length) continue;
    one.classList.toggle("nothing", inside.every(item => item.hidden));
    if (one.matches("details")) one.open = wanted.size > 0 && inside.some(item => !item.hidden);
  }
  form.querySelector("output").textContent = `${items.filter(item => !item.hidden).length} of ${items.length} claims`;
}

function changed() {  // the address keeps what the filters say
  history.replaceState(null, "", wantedAddress());
  apply();
}

function wantedAddress() {
  const text = asked().toString();
  return text ? `#${text}` : location.pathname + location.search;
}

function arrived() {  // from the address: filters, or a place that must be seen
  const hash = location.hash.slice(1), place = hash && !hash.includes("=") && document.getElementById(decodeURIComponent(hash));
  const wanted = new URLSearchParams(place ? "" : hash);
  for (const field of form.elements) if (field.name) field.value = wanted.get(field.name) || "";
  apply();
  for (let one = place; one; one = one.parentElement) if (one.matches("details")) one.open = true;
  if (place) place.scrollIntoView();
}

if (form && items.length) {
  form.hidden = false;
  form.addEventListener("input", changed);
  form.addEventListener("submit", event => event.preventDefault());
  form.addEventListener("reset", () => setTimeout(changed));
  addEventListener("hashchange", arrived);
  arrived();
}

function kept(name) {  // the choice; a page from disk may have no storage
  try {
    if (name) localStorage.setItem("motionlab-theme", name);
    return localStorage.getItem("motionlab-theme");
  } catch { return name; }
}

function isDark() {
  const name = document.documentElement.dataset.theme;
  return name ? name === "dark" : matchMedia("(prefers-color-scheme: dark)").matches;
}

function dress(name) {
  if (name) document.documentElement.dataset.theme = name;
  theme.textContent = isDark() ? "Light page" : "Dark page";
}

theme.hidden = false;
dress(kept());
theme.addEventListener("click", () => {
  const name = isDark() ? "light" : "dark";
  kept(name);
  dress(name);
});

if (!matchMedia("(prefers-reduced-motion: reduce)").matches) {  // a video plays while it is seen
  const watch = new IntersectionObserver(seen => {
    for (const { target, isIntersecting } of seen) isIntersecting ? target.play().catch(() => {}) : target.pause();
  }, { threshold: 0.4 });
  for (const video of document.querySelectorAll("video")) watch.observe(video);
}
