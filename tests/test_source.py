"""The code that notebooks show is the code that runs, with the first paragraph of its docstring."""
import pytest

from motionlab.analyses import shuffle
from motionlab.diffusion import interpolate
from motionlab.figures import source


def test_a_functions_source_is_shown_without_the_long_part_of_its_docstring():
    shown = source(interpolate, shuffle.gaps)
    assert "def interpolate(" in shown.data and "return t * x1 + (1 - t) * x0" in shown.data and "def gaps(" in shown.data
    assert "x_t = t x1 + (1 - t) x0. x0, x1" in shown.data and "Raises:" not in shown.data
    assert "white-space: pre-wrap" in shown._repr_html_() and "interpolate" in shown._repr_html_()


def test_what_was_not_written_in_python_is_refused():
    with pytest.raises(TypeError):
        source(len)
