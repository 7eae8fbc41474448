"""Processes that work for this one, and end with it: also when it is killed without a word (kill -9, out of memory)."""
from __future__ import annotations

import os
import threading
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import connection, get_context, parent_process


def pool(n: int) -> ProcessPoolExecutor:
    """A pool of `n` fresh processes."""
    return ProcessPoolExecutor(n, mp_context=get_context("spawn"), initializer=end_with_parent)


def end_with_parent() -> None:
    """From now on this process, which multiprocessing started, ends within moments of its parent's end."""
    parent = parent_process()
    if parent is not None:
        threading.Thread(target=_wait_for_end, args=(parent.sentinel,), daemon=True).start()


def _wait_for_end(sentinel) -> None:
    connection.wait([sentinel])  # a pipe that the system closes with the parent
    os._exit(1)
