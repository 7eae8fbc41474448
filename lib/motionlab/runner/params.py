"""What a notebook runs with: its parameters cell, the values of a tier, and what the user asked for.

Values come from three places, later ones win: the defaults in the notebook's cell tagged `parameters`, the tier's file
`reproductions/<paper>/params/<tier>.yaml`, and `-p key=value`. Everything is checked before a kernel starts, because
papermill only warns about a parameter that the notebook does not know and then runs with the defaults.

The tier file maps a notebook's stem to values, with the measured cost beside them:

    09_motion_metrics_audit:
      n_clips: 200
      _cost: {minutes: 3.5, ram_gb: 1.2, vram_gb: 0}
"""

from __future__ import annotations

import ast
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from motionlab.core.errors import MotionLabError, nearest, one_of

TIERS = ("smoke", "laptop", "full", "paper")
WANTED = {
    bool: "true or false",
    int: "a whole number",
    float: "a number",
    str: "text",
    list: "a list",
    dict: "a mapping",
}
RUNNER_OWNED = ("tier", "out_dir")  # set by the runner itself, never by a tier file or by -p


@dataclass(frozen=True)
class Parameter:
    """One name of the parameters cell: its default and the type a value must have (None: anything YAML can say)."""

    name: str
    default: Any
    type: type | None
    optional: bool = False


@dataclass(frozen=True)
class Notebook:
    """A numbered notebook, read without importing Jupyter: what it asks, which claims it judges, what it takes."""

    stem: str
    path: Path
    paper: str
    title: str
    claims: tuple[str, ...]
    parameters: dict[str, Parameter] = field(repr=False)
    sources: tuple[str, ...] = field(repr=False)  # its code cells, in order
    data: tuple[str, ...] = ()  # files and folders named in the metadata, relative to the root


def notebook_paths(root: Path) -> dict[str, Path]:
    """`{stem: path}` of every notebook under `root/notebooks`, in numbered order."""
    found = [path for path in Path(root, "notebooks").rglob("*.ipynb") if ".ipynb_checkpoints" not in path.parts]
    return {path.stem: path for path in sorted(found, key=lambda path: path.stem)}


def find_notebook(name: str, root: Path) -> str:
    """The stem that `name` means: a stem, a path to the file, or the start of exactly one stem (such as `09`).

    Raises:
        MotionLabError: no notebook starts like this, or several do.
    """
    stems = list(notebook_paths(root))
    wanted = Path(name).stem if str(name).endswith(".ipynb") else str(name)
    if wanted in stems:
        return wanted
    starts = [stem for stem in stems if wanted and stem.startswith(wanted)]
    if len(starts) == 1:
        return starts[0]
    if starts:
        raise MotionLabError(
            f"'{name}' is the start of several notebooks: {', '.join(starts)}.", fix="Write more of the name."
        )
    listed = ", ".join(stems) if stems else f"there are none under {Path(root, 'notebooks')}"
    raise MotionLabError(f"Unknown notebook '{name}'.{nearest(wanted, stems)}", fix=f"Choose one of: {listed}.")


def read_notebook(stem: str, root: Path) -> Notebook:
    """Read notebook `stem` and its parameters cell.

    Raises:
        MotionLabError: unknown or unreadable notebook, no `metadata.motionlab.paper`, or not exactly one cell tagged
            `parameters` that holds literals only.
    """
    paths = notebook_paths(root)
    path = paths[one_of(stem, paths, "notebook")]
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        code = [cell for cell in content["cells"] if cell["cell_type"] == "code"]
    except (ValueError, KeyError, TypeError) as error:
        raise MotionLabError(
            f"{path} is not a readable notebook ({error}).", fix="Restore the file from git."
        ) from None
    about = content.get("metadata", {}).get("motionlab", {})
    if not about.get("paper"):
        raise MotionLabError(
            f"{path.name} does not say which paper it belongs to.",
            fix="Add metadata.motionlab: {paper: audit, title: ..., claims: [...]} to the notebook.",
        )
    tagged = [cell for cell in code if "parameters" in cell.get("metadata", {}).get("tags", [])]
    if len(tagged) != 1:
        raise MotionLabError(
            f"{path.name} has {len(tagged)} cells tagged 'parameters', wanted exactly one.",
            fix="Tag the cell that holds the defaults, and only that one.",
        )
    return Notebook(
        stem=stem,
        path=path,
        paper=str(about["paper"]),
        title=str(about.get("title", stem)),
        claims=tuple(about.get("claims", ())),
        parameters=read_parameters(_text(tagged[0]), path.name),
        sources=tuple(_text(cell) for cell in code),
        data=tuple(about.get("data", ())),
    )


def read_parameters(source: str, where: str = "the notebook") -> dict[str, Parameter]:
    """The `{name: Parameter}` that a parameters cell assigns (`steps: int = 4`, or without the annotation).

    Raises:
        MotionLabError: the cell holds something else than assignments of literals to names.
    """
    found: dict[str, Parameter] = {}
    try:
        for node in ast.parse(source).body:
            if isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant):
                continue  # a docstring
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            annotation = ast.unparse(node.annotation) if isinstance(node, ast.AnnAssign) else ""
            default = ast.literal_eval(node.value)
            found[target.id] = Parameter(target.id, default, _type_of(default, annotation), optional=default is None)
    except (SyntaxError, ValueError, AttributeError, TypeError) as error:
        raise MotionLabError(
            f"The parameters cell of {where} must assign plain values to names ({error}).",
            fix="Keep only lines like `n_clips: int = 4`; derive other values in the next cell.",
        ) from None
    return found


def _type_of(default: Any, annotation: str) -> type | None:
    if default is not None:
        return list if isinstance(default, tuple) else type(default)
    named = [kind for kind in (bool, int, float, str, list, dict) if kind.__name__ in annotation]
    return named[0] if len(named) == 1 else None


def _text(cell: dict) -> str:
    return cell["source"] if isinstance(cell["source"], str) else "".join(cell["source"])


def tier_file(paper: str, tier: str, root: Path) -> Path:
    """Where the values of `tier` for the notebooks of `paper` are kept."""
    return Path(root, "reproductions", paper, "params", f"{tier}.yaml")


def tier_values(notebook: Notebook, tier: str, root: Path) -> tuple[dict[str, Any], dict[str, float]] | None:
    """`(values, cost)` of `tier` for this notebook; None where it has no such tier. `laptop` is what the defaults are.

    Raises:
        MotionLabError: unknown tier, or a tier file that is not a mapping of stems to mappings.
    """
    one_of(tier, TIERS, "tier")
    path = tier_file(notebook.paper, tier, root)
    entry = _read_tier_file(path).get(notebook.stem)
    if entry is None:
        return ({}, {}) if tier == "laptop" else None
    if not isinstance(entry, dict):
        raise MotionLabError(
            f"{path}: '{notebook.stem}' must be a mapping of parameters to values.", fix="Indent its values below it."
        )
    cost = entry.get("_cost") or {}
    if not isinstance(cost, dict) or not all(_is_number(value) for value in cost.values()):
        raise MotionLabError(
            f"{path}: _cost of '{notebook.stem}' must be like {{minutes: 3, ram_gb: 1, vram_gb: 0}}.",
            fix="Write measured numbers only.",
        )
    return {name: value for name, value in entry.items() if name != "_cost"}, cost


def _read_tier_file(path: Path) -> dict:
    import yaml

    if not path.is_file():
        return {}
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise MotionLabError(
            f"{path} is not readable YAML: {' '.join(str(error).split())}", fix="Mend the line it names."
        ) from None
    if not isinstance(content, dict):
        raise MotionLabError(
            f"{path} must map a notebook's stem to its values.", fix="See the other tiers' files beside it."
        )
    return content


def _is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def resolve(notebook: Notebook, tier: str, given: dict[str, Any], root: Path) -> dict[str, Any]:
    """The values to inject: those of the tier, overridden by `given` (text from the command line, or typed values).

    Raises:
        MotionLabError: the notebook has no such tier, does not know a parameter, or a value has the wrong type; the
            message names the nearest match.
    """
    found = tier_values(notebook, tier, root)
    if found is None:
        having = [name for name in TIERS if tier_values(notebook, name, root) is not None]
        raise MotionLabError(f"{notebook.stem} has no tier '{tier}'.", fix=f"It runs at: {', '.join(having)}.")
    source = str(tier_file(notebook.paper, tier, root))
    values = {name: check_value(notebook, name, value, source) for name, value in found[0].items()}
    values.update({name: check_value(notebook, name, value, "-p") for name, value in given.items()})
    return values


def check_value(notebook: Notebook, name: str, value: Any, source: str) -> Any:
    """`value` in the type of the parameter's default; text is parsed, an int serves as a float.

    Raises:
        MotionLabError: unknown parameter, one that the runner sets itself, or a value of another type.
    """
    if name in RUNNER_OWNED:
        raise MotionLabError(
            f"Parameter '{name}' is set by the runner.",
            fix="Use --tier to choose the tier; results go to runs/<tier>/.",
        )
    if name not in notebook.parameters:
        free = [known for known in notebook.parameters if known not in RUNNER_OWNED]
        raise MotionLabError(
            f"Unknown parameter '{name}' for {notebook.stem} (from {source}).{nearest(name, free)}",
            fix=f"It takes: {', '.join(free) or 'none'}.",
        )
    parameter = notebook.parameters[name]
    try:
        return _convert(value, parameter)
    except (ValueError, TypeError):
        wanted = WANTED.get(parameter.type, "another kind of value")
        raise MotionLabError(
            f"Parameter '{name}' of {notebook.stem} wants {wanted}, got '{value}' (from {source}).",
            fix=f"Its default is {parameter.default!r}.",
        ) from None


def _convert(value: Any, parameter: Parameter) -> Any:
    kind = parameter.type
    if parameter.optional and value in (None, "", "null", "None"):
        return None
    if isinstance(value, str) and kind is not str:
        value = _parse(value, kind)
    if kind is None:
        return value
    if kind is float and _is_number(value):
        return float(value)
    if kind is list:
        return _convert_list(value, parameter.default)
    if type(value) is not kind:  # exact: a bool is no int here
        raise TypeError(value)
    return value


def _parse(text: str, kind: type | None) -> Any:
    """What `text` from a command line says, for a parameter of type `kind`."""
    import yaml

    if kind is bool:
        words = {"true": True, "yes": True, "1": True, "false": False, "no": False, "0": False}
        return words.get(text.strip().lower(), text)
    if kind in (int, float):
        return kind(text)
    if kind is list and not text.strip().startswith("["):
        text = f"[{text}]"  # `-p species=biped,bird` without the shell's trouble with brackets
    try:
        return yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(text) from None


def _convert_list(value: Any, default: Any) -> list:
    if not isinstance(value, (list, tuple)):
        raise TypeError(value)
    kinds = {type(item) for item in default or ()}
    if len(kinds) != 1:
        return list(value)
    item = Parameter("item", None, kinds.pop())
    return [_convert(entry, item) for entry in value]


def cost_text(cost: dict[str, float]) -> str:
    """`about 3.5 min, 1.2 GB RAM`, or `not measured yet`."""
    if not cost.get("minutes"):
        return "cost not measured yet"
    minutes = cost["minutes"]
    long = (
        f"{minutes * 60:.0f} s" if minutes < 1.5 else f"{minutes:.0f} min" if minutes < 90 else f"{minutes / 60:.1f} h"
    )
    words = [f"about {long}"]
    words += [f"{cost[key]:g} GB {name}" for key, name in (("ram_gb", "RAM"), ("vram_gb", "VRAM")) if cost.get(key)]
    return ", ".join(words)
