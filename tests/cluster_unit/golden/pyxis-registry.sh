#!/bin/bash
#SBATCH --job-name=small-abc234
#SBATCH --partition=gpu
#SBATCH --nodes=2
#SBATCH --ntasks-per-node=4
#SBATCH --cpus-per-task=1
#SBATCH --time=0-01:30:00
#SBATCH --signal=USR2@120
#SBATCH --requeue
#SBATCH --open-mode=append
#SBATCH --output=/shared/runs/small-abc234/attempts/slurm-%j.log
#SBATCH --chdir=/shared/runs/small-abc234
#SBATCH --export=ALL
#SBATCH --gres=gpu:h100:4
# shellcheck disable=SC2317 # which of the functions are called depends on the runtime
trap '' TERM  # untrapped, it kills bash, and nobody decides; `launch` hears it
unset SLURM_JWT  # a client's, of minutes: on a node SLURM knows who asks, and srun takes none
# small-abc234, rendered by xgen. The functions below are xgen/cluster/host/; `decide` decides.

RUN=/shared/runs/small-abc234
RUN_NAME=small-abc234
DISCOVERY_FILE=/shared/runs/.discovery/small-abc234.json
STAGE=0
STAGE_NAME=''
LAST_STAGE=0
SHARDS=0
SERVES=''
NUM_TASKS=8
TIME_LIMIT=5400
LEAD=120
MAX_FAILURES=1
RESTART_BY=requeue
BACKOFF_FIRST=30
BACKOFF_MOST=600
MAX_GPU_SECONDS=0
NUM_GPUS=8
EXPORT=HOME,USER,LOGNAME,LANG,PATH,LC_ALL,XGEN_RUN_DIR,XGEN_ATTEMPT,XGEN_STAGE,MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,NCCL_SOCKET_IFNAME,NVIDIA_VISIBLE_DEVICES,NVIDIA_DRIVER_CAPABILITIES
FROM_CLIENT='HOME USER LOGNAME LANG PATH SLURM_CONF SLURM_CONF_SERVER SLURM_CLUSTERS SLURM_SACK_SOCKET SLURM_JWT SBATCH_ACCOUNT SBATCH_CLUSTERS SBATCH_CONSTRAINT SBATCH_NO_REQUEUE SBATCH_QOS SBATCH_RESERVATION SBATCH_WCKEY LD_LIBRARY_PATH LD_PRELOAD KRB5CCNAME'
TERMINATED=${TERMINATED-}
FAILURES=0
RESUMED=''
REQUEUE_PAUSE=15
NUM_NODES=2
PARTITION=gpu
CHECK_LIMIT=60
ACT=exclude
DEATHS=2
WINDOW=86400
EXCLUDE_FOR=86400
MOST_PERMILLE=100
NODE_DEATHS='gpu=uncorrectable ECC|fallen off the bus|\bXid\b
cuda=CUDA error: (unknown error|an illegal instruction)
unfit=unhealthy: node 
bus=Bus error
hang=^hung: '
SURE_DEATHS='gpu unfit lost'
EXCLUDED_HERE=''
umask 002
export LC_ALL=C

# … the text of xgen/cluster/host/ …

# shellcheck disable=SC2016 # values are literal: a $ in them is a $
set_environment() {
  export XGEN_RUN_DIR="$RUN" XGEN_ATTEMPT="$ATTEMPT" XGEN_STAGE="$STAGE"
  export PYTHONPATH=/shared/runs/small-abc234/code
  export SRUN_CPUS_PER_TASK=1  # srun does not inherit it
  export PYTHONUNBUFFERED=1
  export NCCL_SOCKET_IFNAME=ib0
}

run_tasks() {
  local XGEN_ENV_FILE="$ATTEMPT_DIR/env"
  set_environment
  export NVIDIA_VISIBLE_DEVICES=all  # of the job's own: SLURM hides the others
  export NVIDIA_DRIVER_CAPABILITIES=compute,utility
  record_environment "$XGEN_ENV_FILE"
  exec srun \
    --export="$EXPORT" \
    --kill-on-bad-exit=1 \
    --label \
    --unbuffered \
    --gpu-bind=none \
    '--container-image=docker://nvcr.io#team/trainer:sha256:9ab19ab19ab19ab19ab19ab19ab19ab19ab19ab19ab19ab19ab19ab19ab19ab1' \
    --container-name="small-abc234-$(failures_so_far)" \
    --container-mounts=/shared/runs/small-abc234:/shared/runs/small-abc234,/shared/runs/small-abc234/code:/shared/runs/small-abc234/code:ro,/shared/runs/.discovery:/shared/runs/.discovery,/dev/infiniband:/dev/infiniband \
    --container-workdir=/shared/runs/small-abc234/code \
    --no-container-mount-home \
    --container-readonly \
    --no-container-remap-root \
    --no-container-entrypoint \
    --container-env=LC_ALL,XGEN_RUN_DIR,XGEN_ATTEMPT,XGEN_STAGE,MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,NCCL_SOCKET_IFNAME \
    --mpi=none \
    python3 -m xgen.cli.task /shared/runs/small-abc234
}

begin_attempt
check_nodes <<'END'
CHECKS='gpus memory disk shm clock filesystem'
CHECK_LIMIT=60
NUM_GPUS=4
GPU_FILES=''
MEMORY_WANTED=0
SHM_WANTED=0
TMP_WANTED=1073741824
# … the text of xgen/cluster/host/checks.sh …
run_checks
END
choose_rendezvous
launch
decide
