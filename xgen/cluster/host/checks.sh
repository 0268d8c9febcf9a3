# Is this node fit to work? Run by every job on each of its nodes before its tasks, and by SLURM's prolog, epilog and
# HealthCheckProgram (slurm/hooks/): the same text. It needs bash, coreutils and grep; nvidia-smi and dmesg where they are.
# What it says is a line a fact: xgen-health NODE CHECK bad|note|time|done TEXT. `bad` is a fault of the node, `note` is not.
#
# Settings, each of which may be missing: CHECKS, CHECK_LIMIT (seconds), NUM_GPUS, GPU_FILES (device file of a GPU, {} for
# its number), MEMORY_WANTED, SHM_WANTED and TMP_WANTED (bytes), SHARED (a folder on the shared file system).

# run_checks: all at once, for they wait for different things. One that hangs (a dead mount cannot even be killed) is a
# finding, and is left behind.
run_checks() {
  local name level text left waiting=0 answered=' ' began=$SECONDS limit=${CHECK_LIMIT:-60} answers
  local -A pids=()
  local checks=${CHECKS-gpus memory disk shm clock filesystem}
  name_node
  exec {answers}< <(
    for name in $checks; do
      (
        echo "$name pid $BASHPID"
        "check_$name" 2>/dev/null
        echo "$name done"
      ) &
    done
  )
  for name in $checks; do waiting=$((waiting + 1)); done
  while [ "$waiting" -gt 0 ]; do
    left=$((limit - (SECONDS - began)))
    if [ "$left" -le 0 ] || ! read -r -t "$left" name level text <&"$answers"; then break; fi
    case $level in
      pid) pids[$name]=$text ;;
      done) answered+="$name " waiting=$((waiting - 1)) ;;
      *) say "$name" "$level" "$text" ;;
    esac
  done
  for name in $checks; do
    case $answered in *" $name "*) continue ;; esac
    say "$name" bad "did not answer within $limit s"
    kill -9 "${pids[$name]-}" 2>/dev/null
  done
  say all "done" "$((SECONDS - began)) s"
}

say() { printf 'xgen-health %s %s %s %s\n' "$NODE" "$1" "$2" "$3"; }

# SLURM's name of this node.
name_node() {
  NODE=${SLURMD_NODENAME-}
  [ -z "$NODE" ] || return 0
  case ${SLURM_JOB_NODELIST-} in
    '' | *[][,]*) NODE=$(hostname -s) ;;
    *) NODE=$SLURM_JOB_NODELIST ;;
  esac
}

# What the checks say; `run_checks` puts the node before it.
bad() { echo "$1 bad $2"; }
note() { echo "$1 note $2"; }

# asked COMMAND…: a program that may hang, and then has a moment less than its check.
asked() { timeout -k 1 $((${CHECK_LIMIT:-60} - 2)) "$@"; }

# GPUs: as many as were granted, and none with an error that only a reset mends.
check_gpus() {
  [ "${NUM_GPUS:-0}" -gt 0 ] || return 0
  if command -v nvidia-smi >/dev/null; then
    check_nvidia
  else
    count_device_files
  fi
}

check_nvidia() {
  local answer code found index uncorrected thermal brake pending failure fields
  fields=index,ecc.errors.uncorrected.volatile.total
  fields+=,clocks_throttle_reasons.hw_thermal_slowdown,clocks_throttle_reasons.hw_power_brake_slowdown
  answer=$(asked nvidia-smi --query-gpu="$fields" --format=csv,noheader 2>&1)
  code=$?
  case $code in
    0) ;;
    124 | 137) bad gpus "nvidia-smi did not answer" ;;
    *) bad gpus "nvidia-smi: $(head -n 1 <<<"$answer")" ;;
  esac
  [ "$code" -eq 0 ] || return 0
  found=$(grep -c . <<<"$answer")
  [ "$found" -ge "$NUM_GPUS" ] || bad gpus "$found of $NUM_GPUS GPUs answer"
  while IFS=', ' read -r index uncorrected thermal brake; do
    case $uncorrected in
      0 | *[!0-9]*) ;; # or not counted by this GPU
      *) bad gpus "GPU $index: $uncorrected uncorrected ECC errors since it was reset" ;;
    esac
    [ "$thermal" != Active ] || note gpus "GPU $index is throttled: too hot"
    [ "$brake" != Active ] || note gpus "GPU $index is throttled: the power supply asks for it"
  done <<<"${answer//Not Active/No}"
  answer=$(asked nvidia-smi --query-remapped-rows=gpu_bus_id,remapped_rows.pending,remapped_rows.failure \
    --format=csv,noheader 2>/dev/null) || answer='' # older drivers know no such rows
  while IFS=', ' read -r index pending failure; do
    case $pending in Yes | [1-9]*) bad gpus "GPU $index: a row of its memory waits to be remapped; reset the GPU" ;; esac
    case $failure in Yes | [1-9]*) bad gpus "GPU $index: a row of its memory could not be remapped; have it replaced" ;; esac
  done <<<"$answer"
  find_xid
}

# Xid messages of the last hour that mean broken hardware; those of a program's own fault (13, 31, 43, 45, 94) do not.
find_xid() {
  local line stamp code up
  read -r up _ </proc/uptime
  while read -r line; do
    stamp=${line#*[} stamp=${stamp%%.*}
    code=${line#*Xid*: } code=${code%%[!0-9]*}
    [ "${stamp// /}" -ge $((${up%%.*} - 3600)) ] 2>/dev/null || continue
    case $code in
      48 | 64 | 74 | 79 | 95 | 119 | 120 | 140) bad gpus "Xid $code: ${line#*Xid }" ;;
    esac
  done < <(asked dmesg 2>/dev/null | grep -F 'NVRM: Xid' | tail -n 50)
}

# Without a tool: the device files that this job may open. One without hardware behind it answers ENXIO, one of another
# job's EPERM.
count_device_files() {
  local file found=0 pattern=${GPU_FILES:-/dev/nvidia{\}} said
  for file in "${pattern%%\{\}*}"[0-9]*; do
    [ -e "$file" ] || continue
    said=$( (exec 3<>"$file") 2>&1)
    case $said in *"Operation not permitted"* | *"Permission denied"*) ;; *) found=$((found + 1)) ;; esac
  done
  [ "$found" -ge "$NUM_GPUS" ] || bad gpus "$found of $NUM_GPUS device files ${pattern/\{\}/N} can be opened"
}

# Memory that processes of other jobs hold is not there for this one, whatever SLURM has granted.
check_memory() {
  local name value available=0 total=0
  while read -r name value _; do
    case $name in MemTotal:) total=$value ;; MemAvailable:) available=$value ;; esac
  done </proc/meminfo
  if [ $((available * 1280)) -lt "${MEMORY_WANTED:-0}" ]; then # KiB, and four fifths
    bad memory "$((available >> 10)) MiB are free, $((MEMORY_WANTED >> 20)) are granted to the job"
  elif [ "$available" -lt $((total / 20)) ]; then
    note memory "$((available >> 10)) of $((total >> 10)) MiB are free"
  fi
}

# The node's own /tmp: it can be written, and has room.
check_disk() {
  local file room inodes
  if ! file=$(mktemp /tmp/.xgen-health.XXXXXX 2>&1) || ! echo written >"$file"; then
    bad disk "/tmp cannot be written: ${file##*: }"
    return
  fi
  rm -f "$file"
  read -r room inodes < <(df --output=avail,iavail -B1 /tmp | tail -n 1)
  [ "$room" -ge "${TMP_WANTED:-0}" ] || bad disk "/tmp has $((room >> 20)) MiB free, $((TMP_WANTED >> 20)) are wanted"
  [ "$inodes" = - ] || [ "$inodes" -ge 1000 ] || [ "$inodes" -eq 0 ] || bad disk "/tmp has room for $inodes files only"
}

check_shm() {
  local room
  if ! room=$(df --output=avail -B1 /dev/shm | tail -n 1) || [ -z "$room" ]; then
    bad shm "/dev/shm is not there"
  elif [ "$room" -lt "${SHM_WANTED:-0}" ]; then
    bad shm "/dev/shm has $((room >> 20)) MiB free, $((SHM_WANTED >> 20)) are wanted"
  elif [ "$room" -lt 67108864 ]; then
    note shm "/dev/shm has $((room >> 20)) MiB free"
  fi
}

# Whoever asked compares it with the time of its question and that of the answer.
check_clock() { echo "clock time $(date +%s)"; }

# The shared file system: what is written is what is read, and its clock is ours. That it is full is no node's fault.
check_filesystem() (
  [ -n "${SHARED-}" ] || exit 0
  file="$SHARED/.health-$NODE.$BASHPID"
  trap 'rm -f -- "$file"' EXIT
  set -o pipefail
  if ! written=$({ head -c 1048576 /dev/urandom | tee -- "$file" | cksum && sync -- "$file"; } 2>&1); then
    written=$(grep -m 1 ': ' <<<"$written") written=${written##*: } # the error, without what sum there may be
    case $written in
      "No space left on device" | "Disk quota exceeded") note filesystem "$SHARED: $written" ;;
      *) bad filesystem "$SHARED cannot be written: $written" ;;
    esac
    exit 0
  fi
  now=$(date +%s)
  dd if="$file" iflag=nocache count=0 status=none 2>/dev/null # the next read is not of this node's memory
  read_back=$(cksum <"$file" 2>&1)
  [ "$read_back" = "$written" ] || bad filesystem "$SHARED: what was read is not what was written"
  apart=$(($(stat -c %Y -- "$file") - now))
  [ "${apart#-}" -le 3 ] || note clock "the clock of $SHARED is $apart s from this node's"
  room=$(df --output=avail -B1 -- "$SHARED" | tail -n 1)
  [ "$room" -ge 1073741824 ] || note filesystem "$SHARED has $((room >> 20)) MiB free"
)
