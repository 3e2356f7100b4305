#!/bin/sh
# fresh.sh SIMULATOR COUNT: that many seeds that nobody has run before (from the clock; the first line of each run says which).
set -eu
start=$(($(date +%s) * 1000))
echo "fresh seeds from $start"
exec "$1" --seeds "$2" --start "$start"
