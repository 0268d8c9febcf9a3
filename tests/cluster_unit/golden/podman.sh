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
#SBATCH --export=ALL
#SBATCH --comment=stage:a
#SBATCH --mem=1048576M
#SBATCH --account=team-a
#SBATCH --gres=gpu:h100:8
# shellcheck disable=SC2317 # which of the functions are called depends on the runtime
trap '' TERM  # untrapped, it kills bash, and nobody decides; `launch` hears it
unset SLURM_JWT  # a client's, of minutes: on a node SLURM knows who asks, and srun takes none
# small-abc234, rendered by xgen. The functions below are xgen/cluster/host/; `decide` decides.

RUN=/shared/runs/small-abc234
RUN_NAME=small-abc234
DISCOVERY_FILE=/shared/runs/.discovery/small-abc234.json
STAGE=0
STAGE_NAME=a
LAST_STAGE=0
SHARDS=0
SERVES=''
NUM_TASKS=16
TIME_LIMIT=129630
LEAD=300
MAX_FAILURES=3
RESTART_BY=requeue
BACKOFF_FIRST=30
BACKOFF_MOST=600
MAX_GPU_SECONDS=0
NUM_GPUS=16
EXPORT=HOME,USER,LOGNAME,LANG,PATH,LC_ALL,XGEN_RUN_DIR,XGEN_ATTEMPT,XGEN_STAGE,MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,NCCL_SOCKET_IFNAME,GREETING,XGEN_SECRETS_KEY
FROM_CLIENT='HOME USER LOGNAME LANG PATH SLURM_CONF SLURM_CONF_SERVER SLURM_CLUSTERS SLURM_SACK_SOCKET SLURM_JWT SBATCH_ACCOUNT SBATCH_CLUSTERS SBATCH_CONSTRAINT SBATCH_NO_REQUEUE SBATCH_QOS SBATCH_RESERVATION SBATCH_WCKEY LD_LIBRARY_PATH LD_PRELOAD KRB5CCNAME XGEN_SECRETS_KEY'
TERMINATED=${TERMINATED-}
FAILURES=0
RESUMED=''
REQUEUE_PAUSE=15
NUM_NODES=2
PARTITION=preempt
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
  export SRUN_CPUS_PER_TASK=12  # srun does not inherit it
  export PYTHONUNBUFFERED=1
  export NCCL_SOCKET_IFNAME=eth0
  export GREETING='it'"'"'s $5, all in'
}

run_tasks() {
  local XGEN_ENV_FILE="$ATTEMPT_DIR/env"
  set_environment
  record_environment "$XGEN_ENV_FILE"
  exec srun \
    --export="$EXPORT" \
    --kill-on-bad-exit=1 \
    --label \
    --unbuffered \
    --gpu-bind=none \
    --mpi=none \
    bash "$ATTEMPT_DIR/task.sh" \
    python3 -m xgen.cli.task /shared/runs/small-abc234
}

begin_attempt
check_nodes <<'END'
CHECKS='gpus memory disk shm clock filesystem'
CHECK_LIMIT=60
NUM_GPUS=8
GPU_FILES=''
MEMORY_WANTED=1099511627776
SHM_WANTED=0
TMP_WANTED=1073741824
# … the text of xgen/cluster/host/checks.sh …
run_checks
END
cat >"$ATTEMPT_DIR/task.sh" <<'END'
gpus=(--device=nvidia.com/gpu=all)  # of which SLURM opens the job's own
user=(--userns=keep-id)
[ "$(id -u)" -ne 0 ] || user=(--user=0:0)  # keep-id is for users
exec podman run \
  --rm --network=host --ipc=host --uts=host --read-only --cgroups=disabled --init --entrypoint= \
  --workdir=/shared/runs/small-abc234/code --mount=type=bind,source=/tmp,target=/tmp \
  --mount=type=bind,source=/shared/runs/small-abc234,target=/shared/runs/small-abc234 \
  --mount=type=bind,source=/shared/runs/small-abc234/code,target=/shared/runs/small-abc234/code,readonly \
  --mount=type=bind,source=/shared/runs/.discovery,target=/shared/runs/.discovery \
  --mount=type=bind,source=/shared/stores/web,target=/shared/stores/web,readonly \
  --mount=type=bind,source=/scratch/me,target=/scratch \
  --mount=type=bind,source=/shared/data,target=/data,readonly --device=/dev/infiniband --env=LC_ALL \
  --env=XGEN_RUN_DIR --env=XGEN_ATTEMPT --env=XGEN_STAGE --env=MASTER_ADDR --env=MASTER_PORT \
  --env=PYTHONPATH --env=PYTHONUNBUFFERED --env=NCCL_SOCKET_IFNAME --env=GREETING --env=XGEN_SECRETS_KEY \
  --env=SLURM_JOB_ID --env=SLURM_JOB_NAME --env=SLURM_JOB_USER --env=SLURM_JOB_PARTITION \
  --env=SLURM_JOB_NODELIST --env=SLURM_NNODES --env=SLURM_NTASKS --env=SLURM_NODEID --env=SLURM_PROCID \
  --env=SLURM_LOCALID --env=SLURMD_NODENAME --env=SLURM_RESTART_COUNT --env=SLURM_CPUS_PER_TASK \
  --env=CUDA_VISIBLE_DEVICES \
  "${user[@]}" "${gpus[@]}" --rootfs /shared/images/.images/9ab19ab19ab1/folder:O "$@"
END
choose_rendezvous
launch
decide
