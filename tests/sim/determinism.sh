#!/bin/sh
# determinism.sh SIMULATOR [OTHER-BUILD]: two processes, one seed, one trace to the last line; or else no seed means anything.
# The last line has a hash of every event's time, every transfer and disk operation, and what the disks hold at the end.
# OTHER-BUILD (the one with sanitizers) must come to the same hash: what one build finds the other must replay.
set -eu
for seed in 7 42 1004; do
  first=$("$1" --seed "$seed" --trace | cksum)
  second=$("$1" --seed "$seed" --trace | cksum)
  if [ "$first" != "$second" ]; then
    echo "seed $seed gave two different traces: tools/dev sim --seed $seed --trace"
    exit 1
  fi
  echo "seed $seed: one trace ($first)"
done
if [ $# -gt 1 ]; then
  first=$("$1" --seed "$seed" | grep "^seed $seed held trace")
  second=$("$2" --seed "$seed" | grep "^seed $seed held trace")
  if [ "$first" != "$second" ]; then
    printf 'seed %s is another run in another build:\n%s\n%s\n' "$seed" "$first" "$second"
    exit 1
  fi
  echo "seed $seed: one run in both builds"
fi
