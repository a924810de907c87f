#!/usr/bin/env bash
# One engine on one GPU. Not run here.
#
#   MODEL=Qwen/Qwen3-8B serving/vllm/one-gpu.sh
#   gateway.yaml: replicas: ["http://127.0.0.1:8000/v1"]
set -euo pipefail
cd "$(dirname "$0")"
source ./engine.sh

engine 0 "${PORT:-8000}" "$@"
