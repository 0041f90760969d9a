#!/usr/bin/env bash
#SBATCH --job-name=variational-reasoning-train
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=32
#SBATCH --time=24:00:00
#
# Stages 1, 2 and 9 over several nodes, by LLaMA-Factory's own torchrun variables; from the
# repository's root, on a file system that all nodes see:
#   profile=examples/variational_reasoning/qwen2_5_32b
#   sbatch examples/variational_reasoning/slurm_train.sh $profile/1_train_reasoner.yaml [key=value ...]
# Other numbers of nodes or GPUs need no change: the batch is rows_per_step on any of them.
# With data_shared_file_system=true one node tokenizes for all that share its cache. A job that was
# killed resumes from its last checkpoint when it is submitted again.
#
# Without Slurm, on every node, with NODE_RANK 0, 1, ... and one address of node 0 for all:
#   export FORCE_TORCHRUN=1 NNODES=2 NODE_RANK=0 MASTER_ADDR=10.0.0.1 MASTER_PORT=29500 NPROC_PER_NODE=8
#   llamafactory-cli train TRAIN.yaml
# Not measured on a cluster; the tests run it as two local nodes of one process.
set -euo pipefail

export FORCE_TORCHRUN=1 # torchrun also where a node has one GPU
export NNODES=$SLURM_JOB_NUM_NODES
export NPROC_PER_NODE=${NPROC_PER_NODE:-$SLURM_GPUS_ON_NODE}
hosts=$(scontrol show hostnames "$SLURM_JOB_NODELIST")
export MASTER_ADDR=${hosts%%$'\n'*}
# A port of its own for every job, so that jobs that share a node do not collide.
export MASTER_PORT=${MASTER_PORT:-$((20000 + SLURM_JOB_ID % 10000))}

# One task per node; what differs between nodes is expanded there.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=1 bash -c 'NODE_RANK=$SLURM_NODEID exec llamafactory-cli train "$@"' train "$@"
