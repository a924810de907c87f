#!/usr/bin/env bash
# One engine for each GPU, on ports 8000, 8001, ...; ends when one of them ends. Not run here.
#
#   MODEL=Qwen/Qwen3-8B GPUS=4 serving/vllm/replicas.sh
#   gateway.yaml: replicas: ["http://127.0.0.1:8000/v1", "http://127.0.0.1:8001/v1", ...]
set -euo pipefail
cd "$(dirname "$0")"
source ./engine.sh
source ./together.sh

first=${PORT:-8000}
for ((number = 0; number < ${GPUS:?set GPUS, the number of GPUs}; number++)); do
    CUDA_VISIBLE_DEVICES=$number engine "$number" $((first + number)) "$@" &
done
together
