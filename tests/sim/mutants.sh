#!/bin/sh
# Plants known bugs, one at a time, into a copy of the tree, builds the simulator there and looks after how long each is
# found: within a minute of one core, or the simulator is not to be trusted. By hand, once per milestone:
#   tests/sim/mutants.sh [SECONDS] [NAME…]
# Exit code: the number of mutants that were not found.
set -eu
top=$(cd "$(dirname "$0")/../.." && pwd)
seconds=${1:-60}
[ $# -gt 0 ] && shift
copy=$(mktemp -d)
export CCACHE_BASEDIR="$copy" CCACHE_NOHASHDIR=1
trap 'rm -rf "$copy"' EXIT
missed=0
previous=

# mutant NAME FILE PYTHON-EXPRESSION-ON-text [PROGRAM]: the edit must change the file. PROGRAM finds it; replblk_sim by itself.
mutant() {
  name=$1 file=$2 edit=$3 program=${4:-replblk_sim}
  if [ -n "$wanted" ]; then case " $wanted " in *" $name "*) ;; *) return 0 ;; esac fi
  rm -rf "$copy/tree"
  mkdir "$copy/tree"
  (cd "$top" && tar cf - CMakeLists.txt src proto tests/CMakeLists.txt tests/sim bench) | (cd "$copy/tree" && tar xf -)
  sed -i 's/ -Werror / /' "$copy/tree/CMakeLists.txt"
  # The file that the last mutant changed is older again than its object.
  touch "$copy/tree/${previous:-$file}"
  previous=$file
  python3 - "$copy/tree/$file" "$edit" <<'PYTHON'
import re, sys
path, edit = sys.argv[1:]
text = open(path).read()
changed = eval(edit.strip().replace('\n.replace', '.replace'))
if changed == text:
    sys.exit("the edit does not fit " + path + " any more: mend mutants.sh")
open(path, "w").write(changed)
PYTHON
  cmake -S "$copy/tree" -B "$copy/build" -G Ninja -DCMAKE_BUILD_TYPE=Release -DCMAKE_CXX_COMPILER_LAUNCHER=ccache >"$copy/log" 2>&1 || { cat "$copy/log"; exit 1; }
  ninja -C "$copy/build" "$program" >"$copy/log" 2>&1 || { tail -30 "$copy/log"; exit 1; }
  # A run that fails is what is looked for: what it printed decides, below, not its exit code.
  "$copy/build/$program" --seeds 100000 --seconds "$seconds" --first >"$copy/$name.log" 2>&1 || true
  end=$(grep '^[0-9]* runs, ' "$copy/$name.log" | sed 's/ failed; .*; in / failed, /')
  if grep -q '^tools/dev sim --seed' "$copy/$name.log"; then
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
