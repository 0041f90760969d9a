#!/usr/bin/env bash
#SBATCH --job-name=variational-reasoning
#SBATCH --array=0-15
#SBATCH --nodes=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=08:00:00
#SBATCH --requeue
# One sampling, scoring or verification stage as a Slurm array, from the root of a checkout that all
# nodes see:
#   sbatch examples/variational_reasoning/slurm.sh sample_traces CONFIG.yaml [key=value ...]
#   sbatch --dependency=afterok:JOB examples/variational_reasoning/slurm.sh score_traces CONFIG.yaml model=reasoner
# Every GPU of every array task is one process with shards of its own; nothing is exchanged. A task
# that was killed is submitted again (--requeue does it). The last process writes the manifest.
# Tasks 3 and 7 of an array of 16 alone: sbatch --array=3,7 --export=ALL,SHARES=16 ...
# Models of more than one GPU: PROCESSES = GPUs of a node / sampling.tensor_parallel_size. Not
# measured on a cluster.
set -euo pipefail

stage=$1
shift
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
task=${SLURM_ARRAY_TASK_ID:-0}
count=${SLURM_ARRAY_TASK_COUNT:-1}
first=${SLURM_ARRAY_TASK_MIN:-0}
last=${SLURM_ARRAY_TASK_MAX:-$((first + count - 1))}
step=${SLURM_ARRAY_TASK_STEP:-1}
if [[ -n ${SHARES:-} ]]; then
  index=$task count=$SHARES
elif ((first + (count - 1) * step == last)); then
  index=$(((task - first) / step)) # 0-15, 1-16, 0-30:2
else
  index=$task count=$((last + 1)) # 3,7: Slurm does not say which tasks a list has
  echo "sparse array: task $task does share $index of $count; the shares of tasks that are not in the list are left." \
    "If the whole array had N tasks from 0, submit this one with SHARES=N" >&2
fi
pids=()
for ((rank = 0; rank < processes; rank++)); do
  RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=$processes python "scripts/$stage.py" "$@" "shard=$index/$count" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
