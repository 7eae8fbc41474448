"""What the report's tests share: pages read as outlines, links followed, a checkout's evidence under another root, a browser."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from html.parser import HTMLParser
from pathlib import Path
from urllib.parse import unquote

VOID = {"meta", "link", "img", "br", "input", "rect", "line", "circle", "source"}
CHROMIUM = next((path for name in ("chromium", "chromium-browser", "google-chrome") if (path := shutil.which(name))), None)


class Outline(HTMLParser):
    """Links, ids, headings, landmarks and cards of a page; asserts that tags close in order and pictures have words."""

    def __init__(self, text: str):
        super().__init__()
        self.open, self.links, self.ids, self.scripts, self.headings, self.cards = [], [], [], [], [], []
        self.landmarks, self.heading = [], None
        self.feed(text)
        assert self.open == [], self.open

    def handle_starttag(self, tag, attributes):
        attributes = dict(attributes)
        self.links += [attributes[key] for key in ("src", "href", "poster") if attributes.get(key)]
        self.ids += [attributes["id"]] if "id" in attributes else []
        assert not any(name.startswith("on") for name in attributes), attributes
        if tag == "script":
            self.scripts.append(attributes.get("src"))
        if tag == "img":
            assert attributes.get("alt") and attributes["loading"] == "lazy" and attributes["width"], attributes
        if tag == "video":
            assert attributes.get("aria-label") and attributes["preload"] == "none" and "loop" in attributes, attributes
        if tag == "svg":
            assert attributes.get("aria-label"), attributes
        if tag == "article":
            self.cards.append(attributes["id"])
        if tag in ("header", "nav", "main", "footer"):
            self.landmarks.append(tag)
        if re.fullmatch("h[1-6]", tag):
            self.headings.append(int(tag[1]))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag, attributes):
        self.links += [value for key, value in attributes if key in ("src", "href")]

    def handle_endtag(self, tag):
        assert self.open.pop() == tag


def checked(index: Path) -> dict[str, str]:
    """{page: text} of a report, after checking that every page is well formed and every relative link and anchor leads somewhere."""
    texts = {path.name: path.read_text(encoding="utf-8") for path in sorted(index.parent.glob("*.html"))}
    pages = {name: Outline(text) for name, text in texts.items()}
    for name, page in pages.items():
        assert len(page.ids) == len(set(page.ids)), name
        assert page.scripts == ["report.js"] and page.headings[0] == 1 and page.headings.count(1) == 1, name
        assert all(after <= before + 1 for before, after in zip(page.headings, page.headings[1:])), name
        assert set(page.landmarks) == {"header", "nav", "main", "footer"}, name
        for link in page.links:
            assert not re.match(r"https?:|//|/", link), link
            if link.startswith("data:"):
                continue
            file, _, anchor = link.partition("#")
            target = pages.get(unquote(file) or name)
            assert target or (index.parent / unquote(file)).is_file(), f"{name}: {link}"
            if anchor and "=" not in anchor:
                assert unquote(anchor) in target.ids, f"{name}: {link}"
    return texts


def mirrored(root: Path, folder: Path) -> Path:
    """A folder with a checkout's evidence, notebooks and code as links, so that a report can be written beside them."""
    (folder / "reproductions").mkdir(parents=True)
    for path in (root / "reproductions").iterdir():
        if path.name != "report":
            (folder / "reproductions" / path.name).symlink_to(path)
    for name in ("notebooks", "lib"):
        (folder / name).symlink_to(root / name)
    return folder


def chromium(url: str, profile: Path, *options: str, timeout: float = 240) -> tuple[str, list[str]]:
    """Run headless Chromium on a page; its (stdout, console lines)."""
    command = [CHROMIUM, "--headless", "--no-sandbox", "--disable-gpu", f"--user-data-dir={profile}", "--enable-logging=stderr",
               "--no-first-run", "--disable-background-networking", "--disable-component-update", "--allow-file-access-from-files",
               "--hide-scrollbars", "--virtual-time-budget=8000", *options, url]
    done = subprocess.run(command, capture_output=True, text=True, timeout=timeout, env=os.environ | {"HOME": str(profile)})
    return done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line]
