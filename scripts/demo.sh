#!/usr/bin/env bash
# The embedded demo: the tiny profile for SEEDS seeds, one after another, and one report over all: bash scripts/demo.sh [SEEDS]
# Seeds differ in questions, traces and sampling; the base model is trained once, for all of them.
set -euo pipefail
cd "$(dirname "$0")/.."

folders=()
for ((seed = 0; seed < ${1:-1}; seed++)); do
  folder=runs/tiny
  ((seed == 0)) || folder+=-seed$seed
  echo "== seed $seed: $folder"
  python scripts/run.py tiny run=$folder seed=$seed
  folders+=("$folder")
done
((${#folders[@]} == 1)) || python scripts/report.py "${folders[@]}" output=runs/tiny-seeds.md
