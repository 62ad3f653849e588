# Sourced by scripts/haptk and scripts/test: a virtual environment that fits this checkout, made or refreshed when needed.
# Cheap when nothing changed: a few file times are compared and no program is started.

root=$(cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.." && pwd)
venv=${HAPTK_VENV:-$root/.venv}

setup_talk() { printf 'haptk set-up: %s\n' "$*" >&2; }
setup_fail() { printf 'haptk set-up: %s\n' "$@" >&2; exit 69; }

newer_than() { # STAMP FILE...: true when the stamp is missing or any file is newer
  local stamp=$1 file
  shift
  [[ -f $stamp ]] || return 0
  for file in "$@"; do [[ $file -nt $stamp ]] && return 0; done
  return 1
}

find_python() { # the first interpreter that is new enough
  local name
  for name in ${HAPTK_PYTHON:-} python3 python3.13 python3.12 python3.11 /usr/bin/python3; do
    command -v "$name" >/dev/null 2>&1 || continue
    "$name" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { printf '%s' "$name"; return; }
  done
  setup_fail "python3 3.11 or newer is needed and was not found." "Debian: apt-get install python3 python3-venv python3-dev"
}

check_tools() { # PYTHON
  "$1" -c 'import venv, ensurepip' 2>/dev/null ||
    setup_fail "$1 cannot make virtual environments." "Debian: apt-get install python3-venv"
  command -v "${CC:-cc}" >/dev/null 2>&1 || command -v gcc >/dev/null 2>&1 ||
    setup_fail "a C compiler is needed for the fast path and none was found." "Debian: apt-get install gcc libc6-dev"
  "$1" -c 'import os, sys, sysconfig; sys.exit(not os.path.exists(os.path.join(sysconfig.get_path("include"), "Python.h")))' ||
    setup_fail "the headers of $1 (Python.h) are missing." "Debian: apt-get install python3-dev"
}

quietly() { # run, and show the output only when it fails
  local log
  log=$(mktemp)
  if ! "$@" >"$log" 2>&1; then
    cat "$log" >&2
    rm -f "$log"
    setup_fail "failed: $*"
  fi
  rm -f "$log"
}

setup_package() { # the virtual environment, the dependencies, the extensions
  local packaging=("$root/pyproject.toml" "$root/setup.py") sources=("$root"/haptk/_fast/{,*/}*.{pyx,pxd,h})
  newer_than "$venv/.haptk-built" "${packaging[@]}" "${sources[@]}" || return 0
  mkdir -p "$(dirname "$venv")"
  exec 9>"$venv.lock"
  flock 9 # two first runs at once: the second waits and then finds the work done
  if newer_than "$venv/.haptk-installed" "${packaging[@]}"; then
    if [[ ! -x $venv/bin/python ]]; then
      local python
      python=$(find_python) || exit $?
      check_tools "$python"
      setup_talk "making a virtual environment in $venv ($("$python" --version))"
      quietly "$python" -m venv "$venv"
      quietly "$venv/bin/python" -m pip install -q --upgrade 'pip>=25.1'
    fi
    setup_talk "installing what haptk needs and compiling its fast path (once, about two minutes)"
    (cd "$root" && quietly "$venv/bin/python" -m pip install -q --group build &&
      HAPTK_REQUIRE_FAST=1 quietly "$venv/bin/python" -m pip install -q --no-build-isolation \
        --config-settings editable_mode=compat -e '.[lab]') || exit $?
    touch "$venv/.haptk-installed" "$venv/.haptk-built"
  elif newer_than "$venv/.haptk-built" "${sources[@]}"; then
    setup_talk "the sources of the fast path changed: compiling"
    (cd "$root" && HAPTK_REQUIRE_FAST=1 quietly "$venv/bin/python" setup.py -q build_ext --inplace) || exit $?
    touch "$venv/.haptk-built"
  fi
  exec 9>&-
}
