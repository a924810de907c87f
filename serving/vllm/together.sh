# shellcheck shell=bash
# Several engines as one service. Source it before the first is started with &, then call `together`.

# told to stop, or when one ends: the others are told to stop as well, and waited for
trap 'exit 0' INT TERM
# shellcheck disable=SC2046 # one word for each process
trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT

# together: until one of them ends; its status is the script's.
together() {
    wait -n
}
