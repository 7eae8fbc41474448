"""A checkout in miniature for the ledger's tests: one paper, a handful of claims, raw rows with a known effect."""

from __future__ import annotations

import json

import numpy as np

CLAIMS = """
version: 1
protocol: 6
history: [{version: 1, date: "2026-11-21", reason: "first criteria, before any measurement"}]
claims:
  audit.A1:
    says: Reversing time lowers `mf_paper` by 0.05 | or more.
    where: Table 3
    source: stated
    paper_value: "78.3 -> 93.7"
    status: final
    about: paper
    bearing: direct
    because: the sentence speaks of this metric
    notebook: 09_audit
    differs: [other clips, n]
    criterion: {raw: 09_world.csv, metric: mf_paper, arm: identity, minus: reversed, within: [0.05, null],
                why: smallest effect worth naming}
  audit.A2:
    says: A frozen clip scores below 0.2, and its score is a share that is mostly true.
    where: Sec. 3
    source: inferred
    paper_value: null
    status: final
    about: kit
    bearing: proxy
    because: a frozen clip stands for one without motion
    notebook: 09_audit
    criterion:
      all:
        - {raw: 09_world.csv, metric: mf_paper, arm: frozen, within: [null, 0.2]}
        - {raw: 09_world.csv, metric: low, arm: frozen, statistic: share_true, within: [0.9, 1]}
  audit.A3:
    says: Jitter is seen.
    where: Sec. 4
    source: reported
    status: draft
    about: kit
    bearing: direct
    because: jitter is done to the clip
    criterion: {raw: 09_world.csv, metric: mf_paper, arm: jitter, within: [0.5, null]}
  audit.A4:
    says: Kernel width 128 is best.
    where: Table 5
    source: stated
    paper_value: "128"
    status: final
    about: paper
    not_transferable: {reason: an optimum at 5 B parameters}
  audit.A5:
    says: Raters prefer it.
    where: Table 6
    source: stated
    paper_value: "82 %"
    status: final
    about: paper
    not_run: {reason: needs a paid rater study, command: motionlab run 99, cost: 200 EUR}
"""


PARAMETERS = 'tier = "laptop"\nout_dir = "runs/laptop/09_audit"\nseed = 0\nn_clips = 40'


def write_notebook(root, stem: str = "09_audit", parameters: str = PARAMETERS):
    """A notebook of paper `audit` with a parameters cell and nothing else; return its path."""
    cell = {"cell_type": "code", "source": parameters, "metadata": {"tags": ["parameters"]}, "outputs": [], "execution_count": None}
    path = root / "notebooks" / f"{stem}.ipynb"
    path.write_text(json.dumps({"cells": [cell], "metadata": {"motionlab": {"paper": "audit"}}, "nbformat": 4, "nbformat_minor": 5}))
    return path


def make_root(folder, claims: str = CLAIMS):
    """A folder with reproductions/audit/claims.yaml, a notebook and a README with the markers."""
    (folder / "reproductions" / "audit").mkdir(parents=True)
    (folder / "notebooks").mkdir()
    write_notebook(folder)
    (folder / "reproductions" / "audit" / "claims.yaml").write_text(claims, encoding="utf-8")
    (folder / "README.md").write_text("# Kit\n\n<!-- claims:begin -->\n<!-- claims:end -->\n\nEnd.\n", encoding="utf-8")
    return folder


def rows(n: int = 40) -> list[dict]:
    """Raw rows of three arms: identity near 0.9, reversed near 0.6, frozen near 0.1."""
    rng = np.random.default_rng(3)
    return [
        {"item": f"{i:03d}", "arm": arm, "seed": 0, "mf_paper": level + 0.05 * rng.normal(), "low": arm == "frozen"}
        for i in range(n)
        for arm, level in (("identity", 0.9), ("reversed", 0.6), ("frozen", 0.1))
    ]


def start_book(root, tier: str = "laptop", out=None, **values):
    """The book of notebook 09_audit, as `open_book()` in its kernel gives it."""
    from motionlab.ledger.book import Book
    from motionlab.ledger.notebooks import read_notebook

    return Book(read_notebook("09_audit", root), {"tier": tier, "out_dir": out or root / "out", "seed": 0, "n_clips": 40, **values}, root)


def run_notebook(root, tier: str = "laptop", with_pictures: bool = False):
    """What a notebook does, ending in runs/<tier>/09_audit/result.json; return that folder."""
    out = root / "runs" / tier / "09_audit"
    book = start_book(root, tier, out)
    book.raw("09_world.csv", rows())
    if with_pictures:
        add_pictures(book)
    book.judge("audit.A1"), book.judge("audit.A2")
    book.note("speed", np.float32(1.5))
    book.close()
    (out / "executed.ipynb").write_text("{}", encoding="utf-8")
    return out


def add_pictures(book):
    """One figure and one video of a moving square."""
    from matplotlib.figure import Figure

    fig = Figure(figsize=(7, 4))
    axes = fig.subplots()
    axes.bar(["identity", "reversed", "frozen"], [0.9, 0.6, 0.1], color=["#0b5fa5", "#a63c06", "#888888"])
    axes.set_ylabel("mf_paper")
    book.figure(
        fig, "response", caption="Each change and how the metric answers.", alt="three bars", claims=("audit.A1",)
    )
    frames = np.full((12, 48, 48, 3), 235, np.uint8)
    for t in range(12):
        frames[t, 16:32, 2 * t : 2 * t + 16] = (11, 95, 165)
    book.video(frames, "moving_square", 8, caption="The clip itself.")
