# For bash scripts and recipes: `passing COMMAND …` runs a command, hands SIGINT, SIGTERM and SIGHUP on to it as SIGTERM, waits for its end, and
# returns its exit code. Bash itself would die of SIGTERM at once, and leave the command running.
passing() {
    set -m # else bash has a process in the background ignore SIGINT
    "$@" &
    passing_id=$!
    set +m # no lines about jobs
    trap 'passing_signal=yes; kill -TERM "$passing_id" 2>/dev/null || true' INT TERM HUP
    local status
    while
        status=0 passing_signal=
        wait "$passing_id" || status=$?
        [ -n "$passing_signal" ] # then the status may be the signal's: bash keeps the command's for the next wait
    do :; done
    trap - INT TERM HUP
    return "$status"
}
