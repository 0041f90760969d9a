#!/usr/bin/env bash
# An embedded demo for SEEDS seeds, one after another, and one report over all: bash scripts/demo.sh [SEEDS] [PROFILE]
# PROFILE is tiny, tiny_abstract or tiny_questions. Seeds differ in questions, traces and sampling; the base model is trained once.
set -euo pipefail
cd "$(dirname "$0")/.."

profile=${2:-tiny}
folders=()
for ((seed = 0; seed < ${1:-1}; seed++)); do
  folder=runs/$profile
  ((seed == 0)) || folder+=-seed$seed
  echo "== seed $seed: $folder"
  python scripts/run.py "$profile" run=$folder seed=$seed
  if [[ $profile == tiny_questions ]]; then
    # A second round of rejection sampling; and the right hint again, without the check of its traces.
    python scripts/run.py "$profile" run=$folder seed=$seed finals=final_rft carry=final_rft rounds=2
    python scripts/run.py "$profile" run=$folder-unchecked seed=$seed finals=final_hint verify.trace_check=null \
      models.reasoner=$folder/models/reasoner models.posterior=$folder/models/posterior
  fi
  folders+=("$folder")
done
((${#folders[@]} > 1)) || exit 0
if [[ $profile == tiny_abstract ]]; then
  python scripts/compare_arms.py "${folders[@]}"
else
  python scripts/report.py "${folders[@]}" output=runs/$profile-seeds.md
fi
