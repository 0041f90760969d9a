#!/usr/bin/env bash
# The final models for K = 1, 2, 4, 8, 16, 32 traces per question, after `python scripts/run.py
# qwen2_5_7b_1k` has made the reasoner and the posterior; from the repository's root:
#   BASE=MODEL bash examples/variational_reasoning/qwen2_5_7b_1k/k_scaling.sh data.train=PATH [key=value ...]
# ESTIMATOR=gml in place of acc.
# Batch 16 x K, so that every K takes about as many steps (App. C). What is finished is skipped. Not
# measured.
set -euo pipefail
: "${BASE:?is the model folder that everything starts from}"

profile=examples/variational_reasoning/qwen2_5_7b_1k run=runs/qwen2_5_7b_k
yaml=$profile/9_train_final_${ESTIMATOR:-acc}.yaml
stage() { python "scripts/$1.py" $profile/k_scaling.yaml "base=$BASE" "${@:2}"; }

stage prepare_data "$@"
stage sample_traces "$@"
stage score_traces model=reasoner "$@"
stage score_traces model=posterior "$@"
stage sample_answers "$@"
stage verify_answers "$@"
stage build_dataset "$@"
for k in 1 2 4 8 16 32; do
  name=final_${ESTIMATOR:-acc}_k$k status=0
  settings=(model_name_or_path="$BASE" dataset_dir=$run/train dataset="qwen2_5_7b_k_$name" output_dir="$run/models/$name")
  settings+=(rows_per_step=$((16 * k)))
  python scripts/trained.py "$yaml" "${settings[@]}" || status=$?
  case $status in
    0) ;;
    1) llamafactory-cli train "$yaml" "${settings[@]}" ;;
    *) exit "$status" ;;
  esac
done
