#!/usr/bin/env bash
# Builds the image and proves what it is for: not root, a smoke run, the verdicts, and JupyterLab answering at its port.
set -euo pipefail
cd "$(dirname "$0")"
docker build -t motionlab .
inside() { docker run --rm -e WANDB_MODE=disabled motionlab "$@"; }
[ "$(inside id -u)" != 0 ] || { echo "the container runs as root"; exit 1; }
inside .venv/bin/motionlab run 00 --tier smoke
inside .venv/bin/motionlab verify
lab=$(docker run --rm -d -p 127.0.0.1:8888:8888 motionlab)
trap 'docker stop "$lab" > /dev/null' EXIT
for _ in $(seq 60); do
    curl -fs http://127.0.0.1:8888/api > /dev/null && { echo "JupyterLab answers"; exit 0; }
    sleep 1
done
docker logs "$lab"; exit 1
