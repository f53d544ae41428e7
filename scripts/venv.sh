#!/bin/sh
# `make setup` and `make lock`. $PYTHON names the interpreter; else the first of the list below that runs is taken.
#   venv.sh         makes .venv from requirements.lock, with the project in it, editable; nothing to do: silent
#   venv.sh lock    resolves requirements.lock anew; what stands behind `lock` goes to uv
set -eu
unset CDPATH
cd "$(dirname "$0")/.."

say() { printf "$@" >&2; }
die() { printf '%s\n' "$@" >&2; exit 1; }
die_of_pip() { say '\n'; grep -v '^WARNING: Location' .venv/pip.log | tail -n 40 >&2; die "" "$@"; }

# Runs each candidate, since a shim may exist and lead nowhere. Takes the interpreter behind an activated venv, since
# that venv may be the one about to be replaced.
find_python() {
  if [ -n "${PYTHON-}" ]; then set -- "$PYTHON"; else set -- python3.11 python3.12 python3.13 python3.14 python3; fi
  for candidate; do
    py=$("$candidate" -c 'import sys; sys.version_info < (3, 11) and sys.exit(1); print(sys._base_executable)' 2>/dev/null) &&
      return
  done
  die "No Python 3.11 or newer among: $*" "Install one, or name it: make setup PYTHON=/path/to/python3"
}

# Debian splits ensurepip off into python3-venv; a pip of 22.3 or newer outside the venv stands in for the one inside.
make_venv() {
  if "$py" -c 'import ensurepip, venv; ensurepip.version()' 2>/dev/null; then
    "$py" -m venv "$1"
  elif "$py" -c 'import venv' 2>/dev/null && "$py" -m pip --python "$py" --version >/dev/null 2>&1; then
    "$py" -m venv --without-pip "$1"
  else
    die "$py cannot make a virtual environment with pip in it." \
      "Install its venv package (Debian, Ubuntu: apt-get install python3-venv), or name another: make setup PYTHON=…"
  fi
}

pip_in() {
  venv=$1; shift
  if [ -e "$venv/bin/pip" ]; then
    set -- "$venv/bin/python" -I -m pip "$@"
  else
    set -- "$py" -m pip --python "$venv/bin/python" "$@"
  fi
  "$@" --disable-pip-version-check --no-input </dev/null
}

# Counts lines of pip's standard output. Its errors go to the log, among warnings that matter only if something fails.
install_packages() {
  say '  %d packages:' "$(grep -c '^[a-z].*==' requirements.lock)"
  pip_in .venv install --no-deps --progress-bar off --require-hashes -r requirements.lock 2>.venv/pip.log | {
    count=0 installed=
    while IFS= read -r line; do
      case $line in
        Collecting* | Processing* | Ignoring*)
          count=$((count + 1))
          [ $((count % 10)) != 0 ] || say ' %d' $count ;;
        "Installing collected"*) say ' fetched, installing …' ;;
        "Successfully installed"*) installed=yes ;;
      esac
    done
    [ "$installed" ]
  } || die_of_pip 'Setup failed: pip'\''s reason stands above. `make setup` tries again.'
  say ' done\n'
}

install_project() {
  say '  pos-server itself …'
  pip_in .venv install -q --no-index --no-deps --no-build-isolation -e . 2>.venv/pip.log ||
    die_of_pip 'Setup failed: pip could not install the project itself.'
  pip_in .venv check >.venv/pip.log ||
    die_of_pip 'requirements.lock does not fit pyproject.toml: `make lock` resolves it anew.'
  say ' done\n'
}

# What .venv was made from: another interpreter, place, lock or script makes it stale. Scripts in it hold its path.
packages_state() { { .venv/bin/python -V; pwd -P; cat requirements.lock scripts/venv.sh; } 2>&1 | cksum; }
project_state() { cksum <pyproject.toml; }

is_fresh() {
  [ "$(packages_state)" = "$(cat .venv/.packages 2>/dev/null)" ] || return 1
  [ -z "${PYTHON-}" ] || [ "$("$PYTHON" -V 2>&1)" = "$(.venv/bin/python -V)" ]
}

setup() {
  if ! is_fresh; then
    find_python
    say 'Setting up .venv with %s (about 30 s, once) …\n' "$("$py" -V)"
    rm -f .venv/.packages .venv/.project # first: what an interruption leaves behind must not look whole
    rm -rf .venv
    make_venv .venv
    install_packages
    packages_state >.venv/.packages
  fi
  if [ "$(project_state)" != "$(cat .venv/.project 2>/dev/null)" ]; then
    find_python
    rm -f .venv/.project
    install_project
    project_state >.venv/.project
  fi
}

lock() {
  find_python
  tmp=$(mktemp -d)
  trap 'rm -rf "$tmp"' EXIT
  trap 'exit 1' INT TERM
  say 'Resolving requirements.lock …\n'
  make_venv "$tmp/venv"
  pip_in "$tmp/venv" install -qq uv
  "$tmp/venv/bin/uv" pip compile -q --universal --python-version 3.11 --all-extras --generate-hashes \
    --system-certs --no-python-downloads --custom-compile-command "make lock" \
    --output-file requirements.lock "$@" pyproject.toml
}

case ${1-setup} in
  setup) setup ;;
  lock) shift; lock "$@" ;;
  *) die "usage: venv.sh [lock [uv options]]" ;;
esac
