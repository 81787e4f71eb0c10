#!/usr/bin/env bash
# Makes .venv in the repository's root, or brings it up to date; quick when nothing has changed.
#
#   scripts/setup_env.sh            make it
#   . scripts/setup_env.sh          make it and use it in this shell
#
# PYTHON         the interpreter to use (3.11 to 3.13); found when not set
# SMAC_EXTRAS    extras of setup.py to install; default "test,ros", which brings ROS 2 from PyPI, and
#                "test" where a ROS 2 installation has been sourced (ROS_DISTRO is set)
#
# .venv/.smac-stamp says what was installed; .venv/.smac-incomplete is there while an installation
# runs, so that one that was cut short is never taken for a finished one.

_smac_setup() (
  set -euo pipefail
  root="$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)"
  venv="$root/.venv"
  stamp="$venv/.smac-stamp"
  incomplete="$venv/.smac-incomplete"
  log="$venv/install.log"
  extras="${SMAC_EXTRAS:-test,ros}"
  # The wheels' libraries beside those of a sourced installation would get mixed up.
  if [ -z "${SMAC_EXTRAS:-}" ] && [ -n "${ROS_DISTRO:-}" ]; then extras=test; fi

  say() { printf 'setup_env: %s\n' "$*" >&2; }
  fail() { say "error: $*"; exit 1; }

  # Prints "3.12.1" when $1 is an interpreter that will do, else the reason, and fails.
  examine() {
    "$1" -c '
import sys
version = "%d.%d.%d" % sys.version_info[:3]
if not (3, 11) <= sys.version_info[:2] <= (3, 13):
    sys.exit("found Python %s; expected 3.11 to 3.13" % version)
try:
    import venv, ensurepip
except ImportError as error:
    sys.exit("Python %s has no module %s; install it (Debian and Ubuntu: python%d.%d-venv)"
             % ((version, error.name) + sys.version_info[:2]))
print(version)' 2>&1
  }

  find_python() {
    local name reason version reasons=""
    if [ -n "${PYTHON:-}" ]; then
      version="$(examine "$PYTHON")" || fail "PYTHON=$PYTHON: $version"
      python="$PYTHON"
      return
    fi
    for name in python3 python3.13 python3.12 python3.11; do
      command -v "$name" > /dev/null || continue
      if version="$(examine "$name")"; then
        python="$name"
        return
      fi
      reason="$(printf '%s' "$version" | head -n 1)"
      reasons="$reasons"$'\n'"  $name: $reason"
    done
    fail "no suitable Python; expected 3.11 to 3.13 with venv, or its path in PYTHON" \
      "${reasons:-(there is no python3 on PATH)}"
  }

  # What the environment was made from. A moved checkout or another interpreter needs a new one;
  # other dependencies only an update.
  digest() {
    cat "$root/setup.py" "$root/constraints.txt" |
      "$python" -c 'import hashlib, sys; print(hashlib.sha256(sys.stdin.buffer.read()).hexdigest())'
  }

  # Shows the steps of an installation as they come; all of it goes to the log.
  narrate() {
    tee -a "$log" | while read -r line; do
      case "$line" in
        Downloading*" MB)"* | Downloading*" GB)"* | Downloading*iB\)*)
          say "fetching ${line#Downloading }" ;;
        "Installing collected packages"*)
          say "installing the packages" ;;
        "Building wheel for pybullet"*started*)
          say "building pybullet from source, which takes about ten minutes" ;;
      esac
    done
  }

  create_with_uv() {
    uv venv --quiet --seed --python "$(command -v "$python")" "$venv" >> "$uvlog" 2>&1
  }

  create() {
    rm -rf "$venv"
    uvlog="$(mktemp)"
    if [ -z "$uv" ] || ! create_with_uv; then
      uv=""
      "$python" -m venv "$venv" > "$uvlog" 2>&1 ||
        { cat "$uvlog" >&2; rm -f "$uvlog"; fail "$python -m venv $venv failed"; }
    fi
    rm -f "$uvlog"
    : > "$incomplete"
  }

  # One resolution for everything, with torch pinned: installed piece by piece, pip may fetch
  # another build of torch first and several GB with it.
  install() {
    : > "$incomplete"
    : > "$log"
    if [ -n "$uv" ]; then
      # uv does not read pip's variables, and takes a package from the first index that has it
      export UV_EXTRA_INDEX_URL="${UV_EXTRA_INDEX_URL:-${PIP_EXTRA_INDEX_URL:-}}"
      export UV_INDEX_STRATEGY="${UV_INDEX_STRATEGY:-unsafe-best-match}"
      (cd "$root" && uv pip install --python "$venv/bin/python" \
        -c constraints.txt -e ".[$extras]" 2>&1) | narrate && return
      say "uv could not install it (see $log); trying pip, which has its own configuration"
      "$venv/bin/python" -m pip --version > /dev/null 2>&1 ||
        "$venv/bin/python" -m ensurepip >> "$log" 2>&1
    fi
    (cd "$root" && "$venv/bin/python" -m pip install --disable-pip-version-check --no-input \
      --progress-bar off -c constraints.txt -e ".[$extras]" 2>&1) | narrate
  }

  usable() { "$venv/bin/python" -c 'import torch, numpy, smac_core' > /dev/null 2>&1; }

  # Two scripts at once would pull the environment from under each other.
  exec 9< "$root/scripts"
  if command -v flock > /dev/null; then
    flock -n 9 || { say "waiting for another setup of this environment"; flock 9; }
  fi

  python="" uv=""
  find_python
  [ -z "$(command -v uv || true)" ] || uv="uv"
  version="$(examine "$python")"
  fresh=yes
  if [ -d "$venv" ]; then
    old="$("$venv/bin/python" -c 'import sys; print("%d.%d.%d" % sys.version_info[:3])' \
      2> /dev/null || true)"
    old_root="$(sed -n 's/^root //p' "$stamp" 2> /dev/null || true)"
    old_extras="$(sed -n 's/^extras //p' "$stamp" 2> /dev/null || true)"
    if [ -e "$incomplete" ]; then
      say ".venv is from an installation that did not finish; making it anew"
    elif [ -z "$old" ]; then
      say ".venv has no Python that runs; making it anew"
    elif [ "$old" != "$version" ]; then
      say ".venv has Python $old instead of $version; making it anew"
    elif [ "${old_root:-$root}" != "$root" ]; then
      say ".venv was made for another folder; making it anew"
    else
      fresh=no
      # Extras that were asked for before stay: scripts that differ in them would take turns.
      for extra in ${old_extras//,/ }; do
        case ",$extras," in *",$extra,"*) ;; *) extras="$extras,$extra" ;; esac
      done
    fi
  fi
  extras="$(printf '%s\n' ${extras//,/ } | sort -u | paste -s -d , -)"
  wanted="$(printf 'root %s\npython %s\nextras %s\nsources %s' \
    "$root" "$version" "$extras" "$(digest)")"
  if [ "$fresh" = no ] && [ "$(cat "$stamp" 2> /dev/null || true)" = "$wanted" ]; then
    exit 0
  fi

  if [ "$fresh" = yes ]; then
    say "making .venv with Python $version; torch is large, so this takes some minutes"
    create
  else
    say "bringing .venv up to date"
  fi
  if ! install || ! usable; then
    if [ "$fresh" = no ]; then
      say "the update failed; making .venv anew"
      create
      if install && usable; then
        printf '%s\n' "$wanted" > "$stamp"
        rm -f "$incomplete"
        say "done"
        exit 0
      fi
    fi
    tail -n 20 "$log" >&2
    fail "the installation failed; everything pip said is in $log"
  fi
  printf '%s\n' "$wanted" > "$stamp"
  rm -f "$incomplete"
  say "done"
)

_smac_setup
_smac_status=$?
if (return 0 2> /dev/null); then # sourced
  if [ "$_smac_status" -eq 0 ]; then
    . "$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)/.venv/bin/activate"
  fi
  unset -f _smac_setup
  return "$_smac_status"
fi
exit "$_smac_status"
