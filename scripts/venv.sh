#!/bin/sh
# `make setup` and `make lock`, run in the repository's root. $PYTHON names the interpreter.
#   venv.sh         creates .venv from requirements.lock, with the project installed editable; silent if it is current
#   venv.sh lock …  updates requirements.lock; the other arguments are options of uv
set -eu
export PIP_DISABLE_PIP_VERSION_CHECK=1 PIP_NO_INPUT=1

die() { printf '%s\n' "$@" >&2; exit 1; }

# Prints the base interpreter of an activated venv, because that venv may be the one to replace.
find_python() {
  if [ "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3.11 python3.12 python3.13 python3.14 python3; fi
  for candidate; do
    "$candidate" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys._base_executable)' 2>/dev/null &&
      return
  done
  die "No Python 3.11 or newer among: $*" "Install one, or name it: make setup PYTHON=/path/to/python3"
}

make_venv() {
  "$python" -m venv "$1" || die "$python cannot create a virtual environment with pip." \
    "Install its venv package (Debian, Ubuntu: apt-get install python3-venv), or name another: make setup PYTHON=…"
}

# Checksum of the sources of .venv. Another interpreter, path, lock or script makes it stale, because its scripts contain
# its path.
packages_state() { { "${PYTHON:-.venv/bin/python}" -V; pwd -P; cat requirements.lock scripts/venv.sh; } 2>&1 | cksum; }
project_state() { cksum <pyproject.toml; }

setup() {
  if [ "$(packages_state)" != "$(cat .venv/.packages 2>/dev/null)" ]; then
    python=$(find_python)
    printf 'Setting up .venv with %s (about 30 s, once) …\n' "$("$python" -V)" >&2
    rm -rf .venv/.packages .venv # the stamp first, so that an interrupted setup is repeated
    make_venv .venv
    .venv/bin/python -I -m pip install -qq --no-deps --require-hashes -r requirements.lock ||
      die 'Setup failed while it installed packages. Run `make setup` again.'
    packages_state >.venv/.packages
  fi
  if [ "$(project_state)" != "$(cat .venv/.project 2>/dev/null)" ]; then
    rm -f .venv/.project
    .venv/bin/python -I -m pip install -qq --no-index --no-build-isolation -e '.[test]' ||
      die 'Setup failed while it installed the project. If requirements.lock lacks a package, run: make lock'
    project_state >.venv/.project
  fi
}

lock() {
  python=$(find_python)
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  trap 'exit 1' INT TERM
  make_venv "$tmp"
  "$tmp/bin/python" -I -m pip install -qq uv
  "$tmp/bin/uv" pip compile -q --universal --python-version 3.11 --all-extras --generate-hashes \
    --system-certs --no-python-downloads --custom-compile-command "make lock" \
    --output-file requirements.lock "$@" pyproject.toml
}

case ${1-setup} in
  setup) setup ;;
  lock) shift; lock "$@" ;;
  *) die "usage: venv.sh [lock [uv options]]" ;;
esac
