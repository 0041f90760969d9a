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
# Models of more than one GPU: PROCESSES = GPUs of a node / sampling.tensor_parallel_size. Not
# measured on a cluster.
set -euo pipefail

stage=$1
shift
processes=${PROCESSES:-${SLURM_GPUS_ON_NODE:-1}}
count=${SLURM_ARRAY_TASK_COUNT:-1}
first=${SLURM_ARRAY_TASK_MIN:-0}
index=$((${SLURM_ARRAY_TASK_ID:-0} - first))
pids=()
for ((rank = 0; rank < processes; rank++)); do
  RANK=$rank LOCAL_RANK=$rank WORLD_SIZE=$processes python "scripts/$stage.py" "$@" "shard=$index/$count" &
  pids+=($!)
done
status=0
for pid in "${pids[@]}"; do wait "$pid" || status=$?; done
exit "$status"
