"""The ledger's face for people: a static site below `reproductions/report/`, rendered from data (its Markdown is in `results`).

    site       pages and files: an index, a page per paper, one for the kit's own claims
    cards      what a claim's card says: tests, controls, pictures, reasons, sources
    wording    names of arms and columns in words, and the generated sentences
    bands      a test as a drawing: what was wanted, interval, estimate, zero, floor
    costs      what the data behind a verdict took: rows of sweeps, notebooks, trained weights
    pictures   figures and videos of runs, by claim

It opens from disk: relative links, no network, and a script without which every page still reads.
"""
from __future__ import annotations

from motionlab.ledger.report.site import render_report

__all__ = ["render_report"]
