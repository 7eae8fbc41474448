# The kit in a container, by the same road as everybody: `make setup`. Not root; torch without CUDA unless TORCH_INDEX says otherwise.
#   docker build -t motionlab .  &&  docker run --rm -p 8888:8888 motionlab      (docker.sh checks both)
FROM python:3.11-slim
RUN apt-get update && apt-get install -y --no-install-recommends git make && rm -rf /var/lib/apt/lists/* \
    && useradd --create-home motion && install -d -o motion -g motion /home/motion/motionlab
USER motion
WORKDIR /home/motion/motionlab
COPY --chown=motion:motion . .
ARG TORCH_INDEX=https://download.pytorch.org/whl/cpu
RUN PIP_NO_CACHE_DIR=1 PIP_EXTRA_INDEX_URL=$TORCH_INDEX make setup
EXPOSE 8888
CMD ["make", "lab", "LAB=--ip=0.0.0.0 --port=8888 --no-browser"]
