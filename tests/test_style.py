"""What CONTRIBUTING promises about the code and a machine can check."""
from pathlib import Path

LIB = Path(__file__).resolve().parents[1] / "lib"


def test_no_line_of_the_library_is_longer_than_promised():
    long = [f"{path.relative_to(LIB)}:{number}" for path in sorted(LIB.rglob("*.py"))
            for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1) if len(line) > 140]
    assert not long


def test_the_library_has_no_leftovers():
    words = ("TODO", "FIXME", "XXX", "breakpoint(", "pdb.set_trace")
    found = [f"{path.relative_to(LIB)}: {word}" for path in sorted(LIB.rglob("*.py")) for word in words if word in path.read_text(encoding="utf-8")]
    assert not found
