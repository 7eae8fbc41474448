#!/usr/bin/env bash
# The first cell of a notebook as on Colab: from an environment with Colab's preinstalled packages and nothing of ours to a
# smoke run of 00_tour, in an empty folder. The cell must be done within BUDGET seconds and replace nothing that was there.
#
#   tests/colab.sh FOLDER [SOURCE...]     SOURCE: what pip installs: wheels, a git URL, a path (default: wheels of this checkout)
#
# TORCH_FROM=SITE_PACKAGES links another environment's torch and torchvision in place of installing them again (4 GB).
set -euo pipefail
here=$(cd "$(dirname "$0")/.." && pwd)
folder=$1; shift
mkdir -p "$folder" && cd "$folder"
python=${PYTHON:-python3}
if [ $# -eq 0 ]; then
    "$python" -m pip wheel -q --no-deps --disable-pip-version-check -w wheels "$here" "$here/weights"
    set -- "$PWD"/wheels/*.whl
fi
pin() { grep -i "^$1==" "$here/constraints.txt"; }
"$python" -m venv colab
if [ -n "${TORCH_FROM:-}" ]; then
    colab/bin/python "$here/tests/colab_run.py" link "$TORCH_FROM" torch torchvision
else
    colab/bin/python -m pip install -q --disable-pip-version-check "$(pin torch)" "$(pin torchvision)"
fi
# Colab's IPython is of the series 7 (google-colab asks for 7.34.0); the other majors are those of the tested pins.
colab/bin/python -m pip install -q --disable-pip-version-check "ipython==7.34.0" "$(pin numpy)" "$(pin pandas)" "$(pin matplotlib)"
rm -rf content && mkdir content && cd content
env -u MOTIONLAB_ROOT -u PYTHONPATH COLAB_RELEASE_TAG=test MOTIONLAB_SOURCE="$*" MPLBACKEND=agg WANDB_MODE=disabled \
    PIP_DISABLE_PIP_VERSION_CHECK=1 PATH="$PWD/../colab/bin:$PATH" \
    ../colab/bin/python "$here/tests/colab_run.py" run "$here/notebooks/00_tour.ipynb" "${BUDGET:-180}"
cd motionlab && ../../colab/bin/motionlab verify
