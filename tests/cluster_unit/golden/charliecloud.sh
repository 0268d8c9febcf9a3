#!/bin/bash
#SBATCH --job-name=small-abc234
#SBATCH --partition=preempt
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --time=1-12:01:00
#SBATCH --signal=USR2@300
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/shared/runs/small-abc234/attempts/slurm-%j.log
#SBATCH --chdir=/shared/runs/small-abc234
#SBATCH --export=HOME,USER,LOGNAME,LANG,PATH
#SBATCH --mem=1048576M
#SBATCH --account=team-a
#SBATCH --gres=gpu:h100:8
trap 'TERMINATED=1' TERM  # untrapped, it kills bash, and nobody decides
# small-abc234, rendered by xgen. The functions below are xgen/cluster/host.sh; `decide` decides.

RUN=/shared/runs/small-abc234
RUN_NAME=small-abc234
DISCOVERY_FILE=/shared/runs/.discovery/small-abc234.json
NUM_TASKS=16
TIME_LIMIT=129630
LEAD=300
MAX_FAILURES=3
TERMINATED=${TERMINATED-}
FAILURES=0
umask 002
export LC_ALL=C

# … the text of xgen/cluster/host.sh …

# shellcheck disable=SC2016 # values are literal: a $ in them is a $
run_tasks() {
  local XGEN_ENV_FILE="$ATTEMPT_DIR/env"
  export XGEN_RUN_DIR="$RUN" XGEN_ATTEMPT="$ATTEMPT"
  export PYTHONPATH=/shared/runs/small-abc234/code
  export SRUN_CPUS_PER_TASK=12  # srun does not inherit it
  export PYTHONUNBUFFERED=1
  export NCCL_SOCKET_IFNAME=eth0
  export GREETING='it'"'"'s $5, all in'
  # shellcheck source=/dev/null
  . "$XGEN_RUN_DIR/.secrets"
  record_environment "$XGEN_ENV_FILE"
  exec srun \
    --export=HOME,USER,LOGNAME,LANG,PATH,LC_ALL,XGEN_RUN_DIR,XGEN_ATTEMPT,MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,NCCL_SOCKET_IFNAME,GREETING,HF_TOKEN \
    --kill-on-bad-exit=1 \
    --label \
    --unbuffered \
    --gpu-bind=none \
    --mpi=none \
    ch-run \
    --bind=/shared/runs/small-abc234:/shared/runs/small-abc234 \
    --bind=/shared/runs/.discovery:/shared/runs/.discovery \
    --bind=/shared/stores/web:/shared/stores/web \
    --bind=/etc/slurm:/etc/slurm \
    --bind=/scratch/me:/scratch \
    --cd=/shared/runs/small-abc234/code \
    /shared/images/trainer \
    -- \
    python3 -m xgen.cli.task /shared/runs/small-abc234
}

begin_attempt
export USER="${USER:-$(id -un)}"  # ch-run stops without it
[ -d /shared/images/trainer/bin ] || refuse 'the image /shared/images/trainer is not on this node'
# ch-run mounts the image read-only, so it cannot make the mount points itself
mkdir -p /shared/images/trainer/shared/runs/small-abc234 /shared/images/trainer/shared/runs/.discovery /shared/images/trainer/shared/stores/web /shared/images/trainer/etc/slurm /shared/images/trainer/scratch || refuse 'the image /shared/images/trainer lacks mount points'
choose_rendezvous
launch
decide
