#!/usr/bin/env bash
# Sets up .venv and runs the whole test suite in two processes; arguments go to pytest:
#   scripts/test.sh -m "not slow" test/smac_core
#   scripts/test.sh -n 0 --pdb test/smac_core/test_losses.py    # in one process
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
"$root/scripts/setup_env.sh"
cd "$root"
exec "$root/.venv/bin/python" -m pytest -n 2 --dist loadfile "$@"
