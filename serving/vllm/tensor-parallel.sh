#!/usr/bin/env bash
# One engine over several GPUs, for a model that is too large for one. Not run here.
#
#   MODEL=Qwen/Qwen3-32B GPUS=4 serving/vllm/tensor-parallel.sh
#
# GPUS must divide the model's attention heads. A model that fits on one GPU answers more requests a
# second as replicas (replicas.sh): tensor parallel engines wait for each other at every layer.
set -euo pipefail
cd "$(dirname "$0")"
source ./engine.sh

engine 0 "${PORT:-8000}" --tensor-parallel-size "${GPUS:?set GPUS, the number of GPUs}" "$@"
