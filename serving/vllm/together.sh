# shellcheck shell=bash
# Several engines as one service: sourced, after which `together` waits for what was started with &.

# together: until one of them ends or we are told to stop; then the others are told to stop as well.
together() {
    trap 'exit 0' INT TERM
    # shellcheck disable=SC2046 # one word for each process
    trap 'kill $(jobs -p) 2>/dev/null || true; wait' EXIT
    wait -n
}
