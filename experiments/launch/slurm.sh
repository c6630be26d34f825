#!/bin/bash
# JNF on several GPU nodes under SLURM, one process a node: sbatch experiments/launch/slurm.sh polydigits/jnf "$SCRATCH/runs/a"
# SLURM sends SIGTERM two minutes ahead of the limit, and when a job is preempted. The run saves its state, and the job is queued again.
#SBATCH --job-name=jnf
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=1
#SBATCH --gpus-per-node=4
#SBATCH --cpus-per-task=16
#SBATCH --time=04:00:00
#SBATCH --signal=TERM@120
#SBATCH --requeue
#SBATCH --open-mode=append
set -u
experiment="$1"
workdir="$2"

srun --kill-on-bad-exit=1 python -m experiments.train "$experiment" --workdir "$workdir" --watchdog 1800
code=$?
if [ "$code" -eq 130 ]; then  # stopped by a signal, with its state saved
  scontrol requeue "$SLURM_JOB_ID"
fi
exit "$code"
