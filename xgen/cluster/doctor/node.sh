# What a node is, for `xgen doctor --on-node`. It needs bash and coreutils, and says less where a tool is missing: what is
# not said is not known. A line a fact: xgen-doctor NODE KEY TEXT. Run after checks.sh, whose functions it uses.
#
# Settings: RUN_ROOT, TOKEN (a file there, which the client has written and locks) and WORD (what is in it); PYTHON, IMAGES,
# MOUNTS and INPUTS (a line each), PROGRAMS (names), PYXIS (1: asked for); those of checks.sh.

fact() { printf 'xgen-doctor %s %s %s\n' "$NODE" "$1" "$2"; }

# first_line COMMAND…: of what it prints, wherever.
first_line() { timeout -k 1 20 "$@" 2>&1 </dev/null | head -n 1; }

tell_programs() {
  local name
  for name in $PROGRAMS; do
    if [ ! -x "$(command -v "$name")" ]; then # bash also names files that cannot be executed
      fact "program.$name" ''
    else
      case $name in
        enroot) fact "program.$name" "$(first_line enroot version)" ;;
        docker) fact "program.$name" "$(first_line docker version --format '{{.Server.Version}}')" ;; # asks the daemon
        *) fact "program.$name" "$(first_line "$name" --version)" ;;
      esac
    fi
  done
  if [ -n "$PYXIS" ]; then
    if timeout -k 1 20 srun --help 2>&1 | grep -q -e --container-image; then fact pyxis yes; else fact pyxis no; fi
  fi
  if command -v unshare >/dev/null; then
    if timeout -k 1 20 unshare --user true 2>/dev/null; then fact userns yes; else fact userns no; fi
  fi
}

# Interfaces that are up, in the order in which NCCL sees them; by which of them the other nodes of the job are reached;
# and what the node's own name means, for gloo.
tell_network() {
  local name peer address
  ! command -v getent >/dev/null || fact own_address "$(getent ahostsv4 "$(uname -n)" | head -n 1 | cut -d ' ' -f 1)"
  [ ! -e /proc/driver/nvidia/version ] || fact nvidia yes
  command -v ip >/dev/null || return 0
  fact interfaces "$(ip -o -4 addr show up 2>/dev/null | while read -r _ name _; do printf '%s ' "$name"; done)"
  [ -n "${SLURM_JOB_NODELIST-}" ] || return 0
  while read -r peer address; do
    [ "$peer" != "$NODE" ] || continue
    address=$(getent ahostsv4 "$address" | head -n 1 | cut -d ' ' -f 1)
    [ -z "$address" ] || fact "route.$peer" "$(ip -o route get "$address" 2>/dev/null | sed -nE 's/.* dev ([^ ]+).*/\1/p')"
  done < <(timeout -k 1 20 scontrol -o show node "$SLURM_JOB_NODELIST" |
    sed -nE 's/^NodeName=([^ ]+) .*NodeAddr=([^ ]+).*/\1 \2/p')
}

# tell_places KIND PATHS: those that are missing or cannot be read, nor entered.
tell_places() {
  local place number=0
  while IFS= read -r place; do
    number=$((number + 1))
    if [ -z "$place" ]; then
      continue
    elif [ ! -e "$place" ]; then
      fact "$1.$number" "missing $place"
    elif [ ! -r "$place" ] && ! { [ -d "$place" ] && [ -x "$place" ]; }; then
      fact "$1.$number" "unreadable $place"
    fi
  done <<<"$2"
}

tell_files() {
  fact shm "$(df --output=size,avail -B1 /dev/shm 2>/dev/null | tail -n 1)"
  if [ -n "$PYTHON" ]; then
    fact python "$(timeout -k 1 60 "$PYTHON" -c 'import sys, pydantic, yaml, cryptography; print("ok", *sys.version_info[:2])' \
      2>&1 </dev/null | tail -n 1)"
  fi
  tell_places image "$IMAGES"
  tell_places mount "$MOUNTS"
  tell_places input "$INPUTS"
}

# The client has written the file and holds its lock, and reads what is written here. Last, for a dead mount hangs.
tell_run_root() {
  local file=$RUN_ROOT/$TOKEN said
  [ -n "$TOKEN" ] || return 0
  if [ ! -d "$RUN_ROOT" ]; then
    fact run_root missing
  elif [ "$(cat "$file" 2>/dev/null)" != "$WORD" ]; then
    fact run_root other
  else
    if said=$( (printf '%s\n' "$WORD" >"$file.$NODE") 2>&1); then fact run_root same; else fact run_root "unwritable ${said##*: }"; fi
    said=$( (exec 8>>"$file" && timeout -k 1 20 flock -n -E 75 8) 2>&1) # as the batch script does
    case $?:$said in
      75:*) fact lock held ;;
      0:*) fact lock free ;;
      *) fact lock "broken ${said##*: }" ;;
    esac
    CHECKS+=' filesystem'
  fi
}

tell() {
  name_node
  fact here yes
  CHECKS='gpus memory disk clock'
  tell_programs
  tell_network
  tell_files
  tell_run_root
  SHARED=$RUN_ROOT
  run_checks
}
