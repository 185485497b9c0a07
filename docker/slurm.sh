#!/usr/bin/env bash
# A run on the nodes of a Slurm job, as a Ray cluster for its duration (docs/clusters.md, "A Slurm cluster"):
#
#   sbatch --nodes=4 --gpus-per-node=1 docker/slurm.sh cheetah_run --storage /shared/runs
#
# What follows the script's name goes to `parsec run`. `parsec` and `ray` must be on the PATH of every node, your home and
# the storage must be shared.
#
# Whole nodes: `ray symmetric-run` refuses a node on which a Ray runs, and at its end stops every Ray of yours there.
#SBATCH --job-name=parsec
#SBATCH --nodes=1
#SBATCH --ntasks-per-node=1
#SBATCH --exclusive
#SBATCH --time=24:00:00
#SBATCH --open-mode=append
# A node that fails does not take the others along.
#SBATCH --no-kill
# Ten minutes before the time limit (and before a preemption, with Slurm's send_user_signal) the run is asked to stop: its
# trials write checkpoints, and the job is queued again to go on from there.
#SBATCH --signal=B:USR1@600
#SBATCH --requeue
set -euo pipefail

if (($# == 0)); then
  echo "usage: sbatch [OPTIONS] ${0##*/} SPEC [--storage FOLDER] [...]" >&2
  exit 2
fi

# This script runs on the job's first node, which is the head. By address: on Debian a node's own name is 127.0.1.1 to itself.
head=${PARSEC_HEAD_IP:-$(hostname -I | cut -d ' ' -f 1)}
nodes=${SLURM_JOB_NUM_NODES:?is set by sbatch}

export RAY_AUTH_MODE=token RAY_USAGE_STATS_ENABLED=0
ray get-auth-token --generate >/dev/null # in ~/.ray/auth_token, unless it is there
# Seconds until all nodes have joined; Ray's own 30 are few for a file system that loads torch on every node at once.
export RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT=${RAY_SYMMETRIC_RUN_CLUSTER_WAIT_TIMEOUT:-300}

driver=$(mktemp) # the driver's process, on this node
again=no
# shellcheck disable=SC2329 # the traps call it
ask_to_stop() {
  again=$1
  if [[ -s $driver ]]; then kill -TERM "$(<"$driver")" || true; fi
}
trap 'ask_to_stop yes' USR1
trap 'ask_to_stop no' TERM # scancel --batch --signal=TERM JOB

# The words in single quotes are for the driver's own shell, which gives way to parsec.
# shellcheck disable=SC2016
srun --kill-on-bad-exit=0 ray symmetric-run \
  --address "$head:${PARSEC_RAY_PORT:-6379}" --min-nodes "$nodes" \
  --num-cpus "${SLURM_CPUS_ON_NODE:-1}" --num-gpus "${SLURM_GPUS_ON_NODE:-0}" \
  -- bash -c 'echo $$ >"$0"; exec parsec run "$@" --address auto' "$driver" "$@" &
step=$!
while kill -0 "$step" 2>/dev/null; do wait "$step" || true; done # a signal ends `wait`, not srun
code=0
wait "$step" || code=$?

if [[ ! -s $driver ]]; then
  echo "parsec: Ray did not start on all $nodes nodes; what it said is above" >&2
  code=1 # symmetric-run's own would be 0
fi
rm -f "$driver"
if [[ $again == yes && $code != 0 ]]; then exec scontrol requeue "$SLURM_JOB_ID"; fi
exit "$code"
