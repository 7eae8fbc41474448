#!/usr/bin/env bash
# The wheel without installing it: `uvx` and `pipx run`, in an empty folder. Both fetch torch (gigabytes with CUDA): UV_FIND_LINKS and
# TORCH (such as torch==2.13.0+cpu) name a smaller one.
#   tests/uvx.sh FOLDER [WHEEL]
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
mkdir -p "$1" && cd "$1"
python=${PYTHON:-python3}
wheel=${2:-}
[ -n "$wheel" ] || { "$python" -m pip wheel -q --no-deps --disable-pip-version-check -w wheels "$here"; wheel=$(ls "$PWD"/wheels/*.whl); }
"$python" -m venv tools && tools/bin/pip install -q --disable-pip-version-check uv pipx
printf '%s\n' "${TORCH:-torch}" > constraints.txt
unset MOTIONLAB_ROOT PYTHONPATH
tools/bin/uvx --no-progress --python "$("$python" -c 'import sys; print(sys.executable)')" --with "${TORCH:-torch}" --from "$wheel" \
    motionlab world --seed 3 --size 64 --out by_uvx
PIPX_HOME=$PWD/pipx tools/bin/pipx run --spec "$wheel" --pip-args="-q --find-links '${UV_FIND_LINKS:-.}' -c '$PWD/constraints.txt'" \
    motionlab world --seed 3 --size 64 --out by_pipx
cmp by_uvx/truth.npz by_pipx/truth.npz && echo "uvx and pipx made the same clip"
