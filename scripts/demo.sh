#!/usr/bin/env bash
# Sets up .venv and runs the main job on a bare machine; arguments go to smac demo:
#   scripts/demo.sh --help
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
"$root/scripts/setup_env.sh"
exec "$root/.venv/bin/smac" demo "$@"
