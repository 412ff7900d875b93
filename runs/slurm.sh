#!/usr/bin/env bash
# Train under Slurm: sbatch runs/slurm.sh train --text books/ --out out/run --parallel.fsdp 16
# When the time is up Slurm sends SIGTERM: the run saves and ends, and 'sbatch runs/slurm.sh resume out/run' goes on.
#SBATCH --job-name=fewshot
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=64
#SBATCH --time=24:00:00
#SBATCH --signal=TERM@120
set -euo pipefail
FIRST=$(scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
export FIRST NODES="$SLURM_NNODES" PROCESSES="${SLURM_GPUS_ON_NODE:-1}"
# shellcheck disable=SC2016  # the number of a machine is known there, not here
srun bash -c 'NODE="$SLURM_NODEID" exec bash runs/several_machines.sh "$@"' fewshot "$@"
