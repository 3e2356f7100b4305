#!/bin/sh
# Plants known bugs, one at a time, into a copy of the tree, builds the simulator there and looks after how long each is
# found: within a minute of one core, or the simulator is not to be trusted. A rule whose absence other rules make good in
# whole runs is looked after by unit tests. By hand, once per milestone:
#   tests/sim/mutants.sh [SECONDS] [NAME…]
#   tests/sim/mutants.sh --fit      builds nothing: whether every edit still fits the sources (a test of its own)
# Exit code: the number of mutants that were not found, or whose edit does not fit.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
is_fit_only=
[ "${1:-}" = --fit ] && { is_fit_only=yes; shift; }
seconds=${1:-60}
[ $# -gt 0 ] && shift
copy=$(mktemp -d)
export CCACHE_BASEDIR="$copy" CCACHE_NOHASHDIR=1
trap 'rm -rf "$copy"' EXIT
missed=0
previous=

# plant FILE EDIT RESULT: every replacement of the edit must find its text.
plant() {
  python3 - "$@" <<'PYTHON'
import re, sys

class Text(str):
    def replace(self, old, new, count=-1):
        if old not in self:
            sys.exit(f"{sys.argv[1]}: not there: {old!r}: mend mutants.list")
        return Text(str.replace(self, old, new, count))

path, edit, result = sys.argv[1:]
text = Text(open(path).read())
changed = eval(edit.strip().replace('\n.replace', '.replace'))
if changed == text:
    sys.exit(f"{path}: the edit changes nothing: mend mutants.list")
open(result, "w").write(changed)
PYTHON
}

# look SECONDS ARGS: a run that fails is what is looked for: what it printed decides, not its exit code.
look() {
  limit=$1
  shift
  [ "$limit" -le 0 ] || "$copy/build/$program" "$@" --seconds "$limit" --first >"$copy/$name.log" 2>&1 || true
}
is_found() { grep -q '^tools/dev sim --seed' "$copy/$name.log"; }

# mutant NAME FILE PYTHON-EXPRESSION-ON-text [PROGRAM]: the edit must change the file. PROGRAM finds it; replblk_sim by itself;
# NAME_test is a binary of unit tests.
mutant() {
  name=$1 file=$2 edit=$3 program=${4:-replblk_sim}
  if [ -n "$wanted" ]; then case " $wanted " in *" $name "*) ;; *) return 0 ;; esac fi
  if [ -n "$is_fit_only" ]; then
    plant "$top/$file" "$edit" /dev/null || { echo "$name does not fit"; missed=$((missed + 1)); }
    return 0
  fi
  rm -rf "$copy/tree"
  mkdir "$copy/tree"
  (cd "$top" && tar cf - CMakeLists.txt src proto tests/CMakeLists.txt tests/unit tests/sim bench) | (cd "$copy/tree" && tar xf -)
  sed -i 's/ -Werror / /' "$copy/tree/CMakeLists.txt"
  # The file that the last mutant changed is older again than its object.
  touch "$copy/tree/${previous:-$file}"
  previous=$file
  plant "$copy/tree/$file" "$edit" "$copy/tree/$file" || exit 1
  cmake -S "$copy/tree" -B "$copy/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >"$copy/log" 2>&1 || { cat "$copy/log"; exit 1; }
  ninja -C "$copy/build" "$program" >"$copy/log" 2>&1 || { tail -30 "$copy/log"; exit 1; }
  case $program in *_test)
    if "$copy/build/$program" --gtest_brief=1 >"$copy/$name.log" 2>&1; then
      echo "$name: NOT FOUND (unit tests)"
      missed=$((missed + 1))
    else
      echo "$name: found (unit tests): $(grep '^\[  FAILED' "$copy/$name.log" | head -1)"
    fi
    return 0 ;;
  esac
  # The seeds that ever failed are a part of what CI runs.
  begun=$(date +%s)
  : >"$copy/$name.log"
  [ "$program" != replblk_sim ] || look "$seconds" --seeds-file "$top/tests/sim/seeds.txt"
  is_found || look $((seconds - $(date +%s) + begun)) --seeds 100000
  end=$(grep '^[0-9]* runs, ' "$copy/$name.log" | sed 's/ failed; .*; in / failed, /')
  if is_found; then
    # What the run said, or the assertion that ended it.
    said=$(grep -v -E '^(seed|probes|replay|tools/dev|[0-9]+ runs)' "$copy/$name.log" | head -1 | cut -c1-150)
    echo "$name: found ($end): $said"
  else
    echo "$name: NOT FOUND ($end)"
    missed=$((missed + 1))
  fi
}

wanted="$*"
. "$top/tests/sim/mutants.list"
exit "$missed"
