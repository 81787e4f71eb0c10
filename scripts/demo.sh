#!/usr/bin/env bash
# Sets up .venv and runs the main job on a bare machine: a simulated Sawyer, its policy, the reward
# labeler and the learner as ROS 2 nodes; held-out tasks before and after practice without rewards.
# Arguments go to smac up sawyer_sim:
#   scripts/demo.sh iterations:=2 meta_test_tasks:=12
set -euo pipefail
root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
"$root/scripts/setup_env.sh"
exec "$root/.venv/bin/smac" up sawyer_sim "$@"
