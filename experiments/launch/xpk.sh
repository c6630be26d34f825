#!/bin/bash
# JNF on TPU slices of a GKE cluster through xpk: experiments/launch/xpk.sh my-cluster v5litepod-16 polydigits/jnf /runs/a
# xpk makes a JobSet of it; a preempted slice starts all pods again, and the same command continues the run.
set -eu
cluster="$1"
tpu="$2"
experiment="$3"
workdir="$4"

xpk workload create --cluster "$cluster" --workload jnf --tpu-type "$tpu" --num-slices 1 --max-restarts 100 \
  --base-docker-image jnf-jax:latest \
  --command "python -m experiments.train '$experiment' --workdir '$workdir' --watchdog 1800"
