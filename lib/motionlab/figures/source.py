"""The code of an equation, shown in a notebook beside it."""
from __future__ import annotations

import inspect
import textwrap
from collections.abc import Callable

from motionlab.core.extras import demand_extra


def source(*functions: Callable):
    """The source of functions of the library as a notebook renders it, without their docstrings' sections on arguments and errors.

    What runs is what is shown: it is read from the file that the function was imported from.

    Returns:
        `IPython.display.Code`.

    Raises:
        TypeError: something that was not written in Python.
    """
    demand_extra("lab", "Showing code in a notebook", "IPython")
    from IPython.display import Code

    class Wrapped(Code):
        """Long lines are broken, so that nobody scrolls sideways."""

        def _repr_html_(self):
            style = "<style>.motionlab-source pre {white-space: pre-wrap}</style>"
            return f'<div class="motionlab-source">{style}{super()._repr_html_()}</div>'

    return Wrapped("\n\n".join(_shortened(function) for function in functions), language="python")


def _shortened(function):
    code = textwrap.dedent(inspect.getsource(function)).rstrip()
    document = inspect.getdoc(function) or ""
    _, _, rest = code.partition('"""')
    if not document or not rest:
        return code
    first = document.split("\n\n")[0].replace("\n", "\n    ")
    written = rest.partition('"""')[0]
    return code.replace(f'"""{written}"""', f'"""{first}"""', 1)
