#!/usr/bin/env bash
# Prefill and decode on GPUs of their own: long prompts no longer stall the tokens of others. Not run
# here. Needs `pip install nixl vllm-router` beside vLLM, and is worth it for long prompts only:
# throughput does not rise, the slowest tokens come sooner.
#
#   MODEL=Qwen/Qwen3-32B PREFILL_GPUS="0 1" DECODE_GPUS="2 3" serving/vllm/prefill-decode.sh
#   gateway.yaml: replicas: ["http://127.0.0.1:8000/v1"]      the router, not the engines
#
# Over several machines the engines need HOST=0.0.0.0 and VLLM_NIXL_SIDE_CHANNEL_HOST, their own address,
# and the one router everybody's addresses: run the same commands there by hand.
set -euo pipefail
cd "$(dirname "$0")"
source ./engine.sh
source ./together.sh

# vLLM's NIXL connector leaves the roles to the router: every engine can be both
TRANSFER='{"kv_connector": "NixlConnector", "kv_role": "kv_both", "kv_load_failure_policy": "fail"}'

number=0
addresses=()
pool() {
    addresses=()
    local gpu
    for gpu in "$@"; do
        local port=$((8100 + number))
        # a side channel of its own for every engine of a machine
        CUDA_VISIBLE_DEVICES=$gpu VLLM_NIXL_SIDE_CHANNEL_PORT=$((5600 + number)) \
            engine "$number" "$port" --kv-transfer-config "$TRANSFER" &
        addresses+=("http://127.0.0.1:$port")
        number=$((number + 1))
    done
}

read -ra prefill_gpus <<<"${PREFILL_GPUS:?set PREFILL_GPUS, such as \"0 1\"}"
read -ra decode_gpus <<<"${DECODE_GPUS:?set DECODE_GPUS, such as \"2 3\"}"
arguments=()
pool "${prefill_gpus[@]}"
for address in "${addresses[@]}"; do arguments+=(--prefill "$address"); done
pool "${decode_gpus[@]}"
for address in "${addresses[@]}"; do arguments+=(--decode "$address"); done

# prompts with the same beginning to the same prefill engine; tokens to the one with the least to do
vllm-router --vllm-pd-disaggregation --kv-connector nixl \
    "${arguments[@]}" --prefill-policy cache_aware --decode-policy power_of_two \
    --host "$HOST" --port "${PORT:-8000}" &
together
