# shellcheck shell=bash
# What every engine here has in common; sourced by the others. Flags: vLLM 0.32 (its arg_utils.py).
#
#   MODEL           of the hub, or a folder; its name at the engine too, which is `model` in gateway.yaml
#   HOST            where it listens: loopback, unless the network is yours alone
#   VLLM_API_KEY    vLLM reads it by itself; the same as `api_key` in gateway.yaml
#   MAX_MODEL_LEN   tokens of a prompt and its answer together
#   KV_EVENTS_PORT  sends what the prefix cache holds to cache-aware routers; none if unset. Of the first
#                   engine; the port after it replays; every engine takes two. Anybody who reaches
#                   these ports can read them, on every interface: close them to strangers

: "${MODEL:?set MODEL, such as Qwen/Qwen3-32B}"
HOST=${HOST:-127.0.0.1}
MAX_MODEL_LEN=${MAX_MODEL_LEN:-16384}

# kv_events PORT: the publisher's configuration.
kv_events() {
    # `*` binds; with a host's name the publisher would connect to a subscriber instead
    printf '{"enable_kv_cache_events": true, "publisher": "zmq", "endpoint": "tcp://*:%d", "replay_endpoint": "tcp://*:%d"}' \
        "$1" $(($1 + 1))
}

# engine NUMBER PORT [FLAG...]: becomes the engine; NUMBER counts the engines of this machine from 0.
engine() {
    local number=$1 port=$2
    shift 2
    if [[ -n ${KV_EVENTS_PORT:-} ]]; then
        set -- --kv-events-config "$(kv_events $((KV_EVENTS_PORT + 2 * number)))" "$@"
    fi
    exec vllm serve "$MODEL" \
        --host "$HOST" --port "$port" \
        --max-model-len "$MAX_MODEL_LEN" \
        --enable-prefix-caching \
        --enable-prompt-tokens-details \
        --shutdown-timeout 30 \
        "$@"
}
