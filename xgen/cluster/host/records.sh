# What the batch script does on the host around the tasks. Inlined into every sbatch script by render.py, and run
# by the local executor too. It needs bash, coreutils, flock and SLURM's scontrol; nothing from the container.
#
# The requeue decision is `decide`, near the end. Its contract stands in docs/runs.md.

# Of a shard of a job array RUN is its own folder in WHOLE, and JOB is ARRAY_SHARD: see begin_shard.
WHOLE=$RUN JOB=$SLURM_JOB_ID

now() { date +%s.%6N; }

# Text as it stands in JSON; control characters become spaces.
json_text() { printf '%s' "$1" | tr '\000-\037\177' ' ' | sed 's/[\\"]/\\&/g'; }

# event NAME [MEMBERS]: append one event, durable before anything that may kill this script. MEMBERS is JSON that
# begins with a comma.
event() {
  printf '{"time":%s,"run":"%s","attempt":%d,"job_id":"%s","event":"%s","writer":"host"%s}\n' \
    "$(now)" "$RUN_NAME" "$ATTEMPT" "$JOB" "$1" "${2-}" >>"$RUN/events/host.jsonl"
  sync "$RUN/events/host.jsonl"
}

# write_whole FILE TEXT: the old file, or the new one.
write_whole() {
  local tmp="${1%/*}/.${1##*/}.${HOSTNAME%%.*}.$$.tmp"
  echo "$2" >"$tmp" && sync "$tmp" && mv -- "$tmp" "$1" && return 0
  rm -f -- "$tmp"
  echo "xgen: cannot write $1" >&2
  return 1
}

# started ATTEMPT: the event of its start, '' for none.
started() { grep -s "\"attempt\":$1,.*\"event\":\"started\"" "$RUN/events/host.jsonl" | head -n 1; }

# field FILE NAME: the value of one member of a one-line JSON file that xgen wrote.
field() { sed -n "s/.*\"$2\":\"\{0,1\}\([^\",}]*\).*/\1/p" "$1" 2>/dev/null | head -n 1; }

# Failures in a row of the attempts before this one.
failures_so_far() {
  local said
  said=$(field "$(attempt_dir $((ATTEMPT - 1)))/outcome.json" failures)
  echo "${said:-0}"
}

attempt_dir() { printf '%s/attempts/%04d' "$RUN" "$1"; }

# Newest complete checkpoint, -1 when there is none: manifest.json is renamed into place last.
durable_step() {
  local newest=-1 manifest step
  for manifest in "$RUN"/checkpoints/step-*/manifest.json; do
    step=${manifest%/manifest.json}
    step=${step##*/step-}
    case $step in '' | *[!0-9]*) continue ;; esac
    [ -e "$manifest" ] && [ "$step" -gt "$newest" ] && newest=$step
  done
  echo "$newest"
}

# write_outcome ATTEMPT STATUS REASON [CAUSE]: outcome.json of an attempt, with the number of failures in a row that made
# no new durable checkpoint. Crashed and lost attempts are failures, and one that its time limit stopped before it had
# saved anything: the next would get no further. A person who resumes a run starts the count anew.
write_outcome() {
  local dir previous durable failures=0 before=-1
  dir=$(attempt_dir "$1")
  previous=$(attempt_dir $(($1 - 1)))/outcome.json
  durable=$(durable_step)
  if [ -e "$previous" ]; then
    before=$(field "$previous" durable_step)
    [ "$durable" -le "${before:--1}" ] && [ -z "$RESUMED" ] && failures=$(field "$previous" failures)
  fi
  case $2:${4-} in
    crashed:* | lost:*) failures=$((${failures:-0} + 1)) ;;
    finished:* | stage_finished:*) failures=0 ;; # what the next stage counts from
    stopped:time_limit) [ -n "$SERVES" ] || [ "$durable" -gt "${before:--1}" ] || failures=$((${failures:-0} + 1)) ;;
  esac
  OUTCOME=$2 REASON=$3 FAILURES=${failures:-0} # the decision must not depend on room on the disk
  write_whole "$dir/outcome.json" "$(
    printf '{"status":"%s","reason":"%s","durable_step":%d,"failures":%d,"stage":%d,"gpu_seconds":%d,"time":%s}' \
      "$2" "$(json_text "$3")" "$durable" "$FAILURES" "$STAGE" "$(($(held_seconds "$1") * NUM_GPUS))" "$(now)"
  )"
}

# True when this attempt was told to stop, by whomever heard it: the ranks, or this script.
was_signalled() {
  grep -qs "\"attempt\":$1,.*\"event\":\"signal\"" "$RUN"/events/*.jsonl
}

# A predecessor that left no outcome (batch script killed, node lost) is decided now, for nobody else could.
settle_predecessor() {
  local previous=$((ATTEMPT - 1))
  [ "$previous" -ge 1 ] && [ ! -e "$(attempt_dir "$previous")/outcome.json" ] || return 0
  if was_signalled "$previous"; then
    write_outcome "$previous" stopped "told to stop, and killed before it could say more"
  else
    write_outcome "$previous" lost "no outcome: the batch script was killed or its node was lost"
  fi
  [ "$OUTCOME" = stopped ] || [ -n "$RESUMED" ] || [ "$FAILURES" -lt "$MAX_FAILURES" ] ||
    refuse "attempt $previous is the failure number $FAILURES in a row without a new checkpoint"
}

# finish_run: what must not outlive the run. What serves it ends when it sees the marker.
finish_run() { rm -f "$WHOLE/.secrets"; touch "$WHOLE/ended"; }
