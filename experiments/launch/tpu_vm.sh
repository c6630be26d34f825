#!/bin/bash
# JNF on a TPU slice: experiments/launch/tpu_vm.sh my-tpu us-central2-b polydigits/jnf /mnt/runs/a
# The folder of the run is on a disk that every worker mounts. Preemption ends the machines; make a slice of the same kind again, and the
# same line continues the run.
set -eu
name="$1"
zone="$2"
experiment="$3"
workdir="$4"

gcloud compute tpus tpu-vm scp --recurse . "$name:jnf_jax" --zone "$zone" --worker=all
gcloud compute tpus tpu-vm ssh "$name" --zone "$zone" --worker=all --command "
  cd jnf_jax && pip install --quiet -e '.[tpu]' &&
  python -m experiments.train '$experiment' --workdir '$workdir' --distributed --watchdog 1800
"
