# Runs a command where a task of a run runs: in its namespaces, with its environment, in its folder. On the task's node:
# bash -c THIS_TEXT xgen RUN_DIR RANK FOLDER COMMAND...

say() {
  echo "xgen: $1" >&2
  exit 1
}

# task_of RUN_DIR RANK: the process of the task. What it forked has its environment too, and srun and the clients of
# containers are started with it.
task_of() {
  local file pid words parent found=' '
  while read -r file; do
    pid=${file#/proc/} pid=${pid%/environ}
    { mapfile -d '' -t words <"/proc/$pid/cmdline"; } 2>/dev/null || continue
    [ "${words[1]-} ${words[2]-}" = "-m xgen.cli.task" ] || continue
    grep -qszxF "SLURM_PROCID=$2" "$file" || continue
    [ -z "${SLURMD_NODENAME-}" ] || grep -qszxF "SLURMD_NODENAME=$SLURMD_NODENAME" "$file" || continue
    found+="$pid "
  done < <(grep -lszxF "XGEN_RUN_DIR=$1" /proc/[0-9]*/environ)
  for pid in $found; do
    parent=$(sed -n 's/^PPid:[[:space:]]*//p' "/proc/$pid/status" 2>/dev/null)
    [[ $found == *" $parent "* ]] || { echo "$pid" && return; }
  done
}

run=$1 rank=$2 folder=$3
shift 3
task=$(task_of "$run" "$rank")
[ -n "$task" ] || say "rank $rank of ${run##*/} has no process on ${SLURMD_NODENAME:-this machine}: it has not started yet, or has ended"

while IFS= read -r -d '' pair; do
  # Names that bash can export; the step's own terminal stays.
  [[ $pair =~ ^[A-Za-z_][A-Za-z0-9_]*= ]] && [[ $pair != TERM=* ]] && export "${pair?}"
done <"/proc/$task/environ"
export XGEN_RANK=$rank # as the task tells its command

flags=()
for pair in user:U mnt:m pid:p ipc:i uts:u net:n cgroup:C; do
  ours=$(readlink "/proc/self/ns/${pair%:*}") its=$(readlink "/proc/$task/ns/${pair%:*}")
  [ "$ours" = "$its" ] || flags+=("-${pair#*:}")
done
if [ ${#flags[@]} -eq 0 ]; then
  cd "$folder" || exit
  exec "$@"
fi
[[ " ${flags[*]} " == *" -U "* ]] && flags+=(--preserve-credentials)
command -v nsenter >/dev/null || say "nsenter (util-linux) is not on ${SLURMD_NODENAME:-this machine}: without it nobody gets into the container"
# shellcheck disable=SC2016 # for the shell in the container
exec nsenter --target "$task" "${flags[@]}" -- sh -c 'cd "$0" && exec "$@"' "$folder" "$@"
