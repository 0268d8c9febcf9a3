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
EXPORT=HOME,USER,LOGNAME,LANG,PATH,LC_ALL,XGEN_RUN_DIR,XGEN_ATTEMPT,XGEN_STAGE,MASTER_ADDR,MASTER_PORT,PYTHONPATH,PYTHONUNBUFFERED,NCCL_SOCKET_IFNAME,GREETING,XGEN_SECRETS_KEY,NVIDIA_VISIBLE_DEVICES,NVIDIA_DRIVER_CAPABILITIES
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
  export NVIDIA_VISIBLE_DEVICES=all  # of the job's own: SLURM hides the others
  export NVIDIA_DRIVER_CAPABILITIES=compute,utility
  record_environment "$XGEN_ENV_FILE"
  exec srun \
    --export="$EXPORT" \
    --kill-on-bad-exit=1 \
    --label \
    --unbuffered \
    --gpu-bind=none \
    --mpi=none \
    enroot \
    start \
    --mount=/shared/runs/small-abc234:/shared/runs/small-abc234:none:x-create=auto,rbind \
    --mount=/shared/runs/small-abc234/code:/shared/runs/small-abc234/code:none:x-create=auto,rbind,ro \
    --mount=/shared/runs/.discovery:/shared/runs/.discovery:none:x-create=auto,rbind \
    --mount=/shared/stores/web:/shared/stores/web:none:x-create=auto,rbind,ro \
    --mount=/scratch/me:/scratch:none:x-create=auto,rbind \
    --mount=/shared/data:/data:none:x-create=auto,rbind,ro \
    --mount=/dev/infiniband:/dev/infiniband:none:x-create=auto,rbind \
    --env=LC_ALL \
    --env=XGEN_RUN_DIR \
    --env=XGEN_ATTEMPT \
    --env=XGEN_STAGE \
    --env=MASTER_ADDR \
    --env=MASTER_PORT \
    --env=PYTHONPATH \
    --env=PYTHONUNBUFFERED \
    --env=NCCL_SOCKET_IFNAME \
    --env=GREETING \
    --env=XGEN_SECRETS_KEY \
    --env=SLURM_JOB_ID \
    --env=SLURM_JOB_NAME \
    --env=SLURM_JOB_USER \
    --env=SLURM_JOB_PARTITION \
    --env=SLURM_JOB_NODELIST \
    --env=SLURM_NNODES \
    --env=SLURM_NTASKS \
    --env=SLURM_NODEID \
    --env=SLURM_PROCID \
    --env=SLURM_LOCALID \
    --env=SLURMD_NODENAME \
    --env=SLURM_RESTART_COUNT \
    --env=SLURM_CPUS_PER_TASK \
    --env=CUDA_VISIBLE_DEVICES \
    --env=NVIDIA_VISIBLE_DEVICES \
    --env=NVIDIA_DRIVER_CAPABILITIES \
    --rc="$ATTEMPT_DIR/enroot.rc" \
    xgen-a6227b4be59c43e97f9428ed \
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
same_image /shared/images/trainer.sqsh 6000000000 1790000000
# Instead of the image's /etc/rc: the work, and no entrypoint, in the work's own folder.
printf '%s\n' 'cd /shared/runs/small-abc234/code || exit' 'exec "$@"' >"$ATTEMPT_DIR/enroot.rc"
cat >"$ATTEMPT_DIR/node.sh" <<'END'
set -e
folder=${TMPDIR:-/tmp}/xgen-$(id -u)
mkdir -m 700 "$folder" 2>/dev/null || [ -O "$folder" ] || exit
cd "$folder" || exit
exec 9>xgen-a6227b4be59c43e97f9428ed.lock && flock -w 3600 9
[ ! -e xgen-a6227b4be59c43e97f9428ed.complete ] || ! enroot list | grep -qx xgen-a6227b4be59c43e97f9428ed || exit 0
rm -f xgen-a6227b4be59c43e97f9428ed.complete xgen-a6227b4be59c43e97f9428ed.sqsh
file=/shared/images/trainer.sqsh
enroot create --force --name xgen-a6227b4be59c43e97f9428ed "$file"
rm -f xgen-a6227b4be59c43e97f9428ed.sqsh
touch xgen-a6227b4be59c43e97f9428ed.complete
END
on_every_node 3600 "$ATTEMPT_DIR/node.sh" || not_ready "the image"
choose_rendezvous
launch
decide
