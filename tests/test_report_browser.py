"""The report in a headless Chromium: widths, pictures, filters, the switch, the console; and what axe-core says of it."""

from __future__ import annotations

import json
import os
import shutil
import site
import subprocess
from pathlib import Path

import pytest

from motionlab import ledger
from motionlab.core.paths import repo_root
from motionlab.figures import style
from report_pages import CHROMIUM, chromium, mirrored

pytestmark = [pytest.mark.browser, pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on PATH")]
PAGES = ("index", "videojam", "det", "kit")

# Opens every page in a frame of a width, runs a probe in it, and leaves the answers as JSON in the page.
HARNESS = """<!DOCTYPE html><meta charset="utf-8"><title>probe</title><body><script>
const wait = ms => new Promise(done => setTimeout(done, ms));
async function probed(page, width, probe) {
  const frame = document.createElement("iframe");
  frame.width = width; frame.height = 900; frame.src = page;
  document.body.append(frame);
  await new Promise(done => frame.addEventListener("load", done));
  await wait(200);
  return {page, width, ...await probe(frame.contentWindow, frame.contentDocument)};
}
const probe = %s;
addEventListener("load", async () => {
  const answers = [];
  try { for (const [page, width] of %s) answers.push(await probed(page, width, probe)); }
  catch (error) { answers.push({error: String(error)}); }
  const out = document.createElement("pre");
  out.id = "answers"; out.textContent = JSON.stringify(answers);
  document.body.replaceChildren(out);
});
</script>"""

LOOK = """async (window, doc) => {
  for (const one of doc.querySelectorAll("details")) one.open = true;
  for (const one of doc.images) one.loading = "eager";
  for (let k = 0; k < 100 && [...doc.images].some(one => !one.complete); k++) await wait(50);
  const small = [...doc.querySelectorAll("svg.band")].filter(one => one.clientWidth && 12 * one.clientWidth / 320 < 11);
  const texts = [...doc.querySelectorAll("body *")].filter(one => [...one.childNodes].some(node => node.nodeType === 3 && node.data.trim()));
  return {
    wide: doc.documentElement.scrollWidth - window.innerWidth, images: doc.images.length,
    broken: [...doc.images].filter(one => !one.naturalWidth).length, small: small.length,
    least: Math.min(...texts.map(one => parseFloat(window.getComputedStyle(one).fontSize))),
    unreadable: [...doc.images].filter(one => one.width < parseFloat(one.style.getPropertyValue("--legible")) - 2).length,
  };
}"""

USE = """async (window, doc) => {
  const form = doc.querySelector("form.filters"), shown = () => [...doc.querySelectorAll("main [data-verdict]")].filter(one => !one.hidden);
  const say = (name, value) => {
    form.elements[name].value = value;
    form.elements[name].dispatchEvent(new window.Event("input", {bubbles: true}));
  };
  const all = shown().length, shownForm = !form.hidden;
  say("verdict", "fails");
  const verdicts = [...new Set(shown().map(one => one.dataset.verdict))], kept = window.location.hash;
  say("q", "no such word");
  const none = shown().length;
  window.location.hash = "#verdict=holds";
  await wait(100);
  const other = [...new Set(shown().map(one => one.dataset.verdict))];
  window.location.hash = "#" + doc.querySelector("article, .group").id;
  await wait(100);
  const button = doc.querySelector("button.theme"), before = window.getComputedStyle(doc.body).backgroundColor;
  button.click();
  const after = window.getComputedStyle(doc.body).backgroundColor;
  button.click();
  return {all, shownForm, verdicts, kept, none, other, again: shown().length, turned: before !== after,
          back: window.getComputedStyle(doc.body).backgroundColor === before};
}"""

AXE = """async (window, doc) => {
  const script = doc.createElement("script");
  script.src = "axe.min.js";
  doc.head.append(script);
  await new Promise(done => script.addEventListener("load", done));
  const {violations} = await window.axe.run(doc, {resultTypes: ["violations"]});
  return {violations: violations.map(one => [one.id, one.impact, one.nodes.length, one.nodes[0].html.slice(0, 200)])};
}"""


@pytest.fixture(scope="module")
def index(tmp_path_factory):
    """The report of this checkout's evidence, rendered beside it."""
    return ledger.render_report(mirrored(repo_root(), tmp_path_factory.mktemp("browser") / "root"), words=style)


def answers(index, profile, probe, visits, *options):
    """What a probe says of each (page, width), and Chromium's console lines."""
    harness = index.with_name("harness.html")
    harness.write_text(HARNESS % (probe, json.dumps([(f"{page}.html", width) for page, width in visits])), encoding="utf-8")
    dom, console = chromium(harness.as_uri(), profile, "--dump-dom", "--window-size=1400,900", "--virtual-time-budget=40000",
                            "--force-prefers-reduced-motion", *options)      # a playing video and virtual time wait for each other
    harness.unlink()
    assert '<pre id="answers">' in dom, (dom[-300:], console)
    found = json.loads(dom.split('<pre id="answers">')[1].split("</pre>")[0].replace("&lt;", "<").replace("&gt;", ">").replace("&amp;", "&"))
    assert len(found) == len(visits) and not any("error" in one for one in found), found
    return found, console


def test_pages_fit_a_phone_and_a_desk_and_every_picture_loads(index, tmp_path):
    found, console = answers(index, tmp_path, LOOK, [(page, width) for page in PAGES for width in (390, 1280)])
    assert console == []
    for one in found:
        assert one["wide"] <= 0 and one["broken"] == 0 and one["small"] == 0 and one["least"] >= 11, one
        assert one["width"] != 390 or one["unreadable"] == 0, one
        assert one["images"] >= 10 or one["page"] == "index.html", one


def test_filters_address_and_switch_do_what_they_say(index, tmp_path):
    found, console = answers(index, tmp_path, USE, [("index", 1280), ("videojam", 390), ("kit", 1280)])
    assert console == []
    for one in found:
        assert one["shownForm"] and one["verdicts"] == ["fails"] and one["kept"] == "#verdict=fails" and one["none"] == 0, one
        assert one["other"] == ["holds"] and one["again"] == one["all"] and one["turned"] and one["back"], one


def axe_script() -> Path | None:
    """axe-core where a registry's client put it: $MOTIONLAB_AXE, npm's global folder, or a Python package that carries it."""
    named = [Path(os.environ["MOTIONLAB_AXE"])] if "MOTIONLAB_AXE" in os.environ else []
    if npm := shutil.which("npm"):
        folder = subprocess.run([npm, "root", "-g"], capture_output=True, text=True, timeout=60).stdout.strip()
        named += [Path(folder) / "axe-core" / "axe.min.js"] if folder else []
    for package in ("axe_playwright_python", "axe_selenium_python"):
        named += [Path(path) / package / "axe.min.js" for path in site.getsitepackages()]
    return next((path for path in named if path.is_file()), None)


@pytest.mark.slow
@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("dark", [False, True])
def test_axe_finds_nothing(index, tmp_path, width, dark):
    script = axe_script()
    if script is None:
        pytest.skip("no axe-core here: `npm install -g axe-core`, or name axe.min.js in MOTIONLAB_AXE")
    shutil.copy(script, index.with_name("axe.min.js"))
    options = ["--blink-settings=preferredColorScheme=0"] if dark else []
    found, _ = answers(index, tmp_path, AXE, [(page, width) for page in ("index", "videojam", "vtg")], *options)
    assert [(one["page"], one["violations"]) for one in found if one["violations"]] == []
