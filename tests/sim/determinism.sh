#!/bin/sh
# determinism.sh SIMULATOR: two processes, one seed, one trace to the last line; or else no seed means anything.
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
