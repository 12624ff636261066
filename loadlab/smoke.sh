#!/usr/bin/env bash
# 1,000 users for some seconds against a real server in its limits: PASS, FAIL and INVALID (a busy machine) all show that the lab works.
set -euo pipefail
uv run model-export examples iris
status=0
source "$(dirname "$0")/signals.sh"
passing uv run loadlab load users=1000 duration=10s "$@" || status=$?
[ "$status" -le 2 ] || exit "$status"
