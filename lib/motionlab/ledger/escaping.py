"""Text from claims, records and results as text: in HTML and in Markdown tables it can say anything and do nothing."""
from __future__ import annotations

import html
import re
from typing import Any

# Marks that turn the direction of what follows, and control characters: they make text look like other text.
INVISIBLE = re.compile("[\u0000-\u0008\u000b\u000c\u000e-\u001f\u007f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ufeff]")
CODE = re.compile(r"`([^`]+)`")


def visible(value: Any) -> Any:
    """Text without invisible marks; anything else as it is."""
    return type(value)(INVISIBLE.sub("", value)) if isinstance(value, str) else value


def html_text(text: Any) -> str:
    """Text as HTML, with what stands in backticks as code."""
    return CODE.sub(r"<code>\1</code>", html.escape(visible(str(text))))


def markdown_cell(text: Any) -> str:
    """Text as a cell of a Markdown table: one line, no markup but what stands in backticks, no tags, no links."""
    parts = CODE.split(" ".join(visible(str(text)).split()))  # text and code by turns
    return "".join(f"`{part}`" if k % 2 else _plain(part) for k, part in enumerate(parts)).replace("|", "\\|")


def _plain(text: str) -> str:
    """What could begin a tag, an entity, code or a link, as entities; `a < b` and `a -> b` stay readable in the source."""
    text = re.sub(r"&(?=[#a-zA-Z])", "&amp;", text)
    return re.sub(r"<(?=[a-zA-Z/!?])", "&lt;", text).replace("`", "&#96;").replace("](", "]&#40;")
