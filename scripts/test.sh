#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite; arguments go to pytest:
#   scripts/test.sh -m "not slow" test/smac_core
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
"$root/scripts/setup_env.sh"
cd "$root"
exec "$root/.venv/bin/python" -m pytest "$@"
