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
  printf '{"status":"%s","reason":"%s","durable_step":%d,"failures":%d,"stage":%d,"time":%s}\n' \
    "$2" "$(json_text "$3")" "$durable" "$FAILURES" "$STAGE" "$(now)" >"$dir/.outcome.json.tmp" &&
    sync "$dir/.outcome.json.tmp" &&
    mv "$dir/.outcome.json.tmp" "$dir/outcome.json"
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

is_shard() { [ "${SHARDS:-0}" -gt 0 ]; }

# A shard of a job array is a run within the run: attempts, events and lock of its own in shards/STAGE/NUMBER, and links
# to what it shares. Its job is named by array and number: the SLURM_JOB_ID of the last shard to start is the number of
# the array, and SLURM would requeue all of it (seen in 22.05).
#
# Shards that serve the run (SERVES) are beside its own attempts: it is told nothing of them, and they end with it.
begin_shard() {
  local name
  SHARD=$SLURM_ARRAY_TASK_ID ARRAY="$WHOLE/shards/${STAGE_NAME:-array}"
  JOB="${SLURM_ARRAY_JOB_ID}_$SHARD" OF_WHOLE="$ARRAY/.job-$SLURM_ARRAY_JOB_ID"
  RUN="$ARRAY/$SHARD"
  mkdir -p "$RUN/attempts" "$RUN/events" "$RUN/checkpoints" "$RUN/metrics" "$ARRAY/.finished" "$ARRAY/.given-up" ||
    exit 1
  for name in spec.yaml cluster.yaml image.json code .secrets; do
    [ ! -e "$WHOLE/$name" ] || ln -sfn "../../../$name" "$RUN/$name"
  done
  [ -d "$OF_WHOLE" ] || begin_array || exit 1
}

# begin_array: the first of its shards takes an attempt of the whole run, which the run's own events speak of; .job-ARRAY
# is a link to its folder.
begin_array() (
  [ -z "$SERVES" ] || exec mkdir -p "$OF_WHOLE"
  exec 8>>"$ARRAY/.lock"
  flock -w 600 8
  [ ! -d "$OF_WHOLE" ] || exit 0
  number=1
  while ! mkdir "$WHOLE/attempts/$(printf %04d "$number")" 2>/dev/null; do
    [ "$number" -lt 9999 ] || exit 1
    number=$((number + 1))
  done
  ln -s "../../attempts/$(printf %04d "$number")" "$OF_WHOLE" || exit 1
  of_whole event started ",\"nodes\":\"$SLURM_JOB_NODELIST\"${STAGE_NAME:+,\"stage\":\"$STAGE_NAME\"}"
)

# of_whole event|write_outcome …: say it of the whole run, in the attempt that the array is.
of_whole() {
  local RUN=$WHOLE JOB=$SLURM_ARRAY_JOB_ID ATTEMPT OUTCOME REASON FAILURES # what is called sees these, and sets these
  ATTEMPT=$(readlink "$OF_WHOLE")
  ATTEMPT=$((10#${ATTEMPT##*/}))
  [ "$1" != write_outcome ] || set -- write_outcome "$ATTEMPT" "${@:2}"
  "$@"
}

# end_shard finished|given-up [REASON]: the run is told of the first shard that is given up, and of the end of them all.
end_shard() {
  local first num_finished num_given_up reason
  echo "${2-}" >"$ARRAY/.$1/$SHARD"
  [ -z "$SERVES" ] || return 0
  if [ "$1" = given-up ] && mkdir "$OF_WHOLE/.given-up" 2>/dev/null; then
    of_whole event shard_given_up ",\"reason\":\"shard $SHARD: $(json_text "$2")\"${STAGE_NAME:+,\"stage\":\"$STAGE_NAME\"}"
  fi
  num_finished=$(find "$ARRAY/.finished" -type f | wc -l)
  num_given_up=$(find "$ARRAY/.given-up" -type f | wc -l)
  [ $((num_finished + num_given_up)) -ge "$SHARDS" ] && mkdir "$OF_WHOLE/.ended" 2>/dev/null || return 0
  if [ "$num_given_up" -gt 0 ]; then
    first=$(find "$ARRAY/.given-up" -type f -printf '%f\n' | sort -n | head -n 1)
    reason="$num_given_up of $SHARDS shards${STAGE_NAME:+ of stage $STAGE_NAME} given up; shard $first: $(head -n 1 "$ARRAY/.given-up/$first")"
    of_whole write_outcome crashed "$reason"
    finish_run
    of_whole event failed ",\"reason\":\"$(json_text "$reason")\""
  elif [ "$STAGE" -lt "$LAST_STAGE" ]; then
    of_whole write_outcome stage_finished ''
    of_whole event stage_finished ",\"stage\":\"$STAGE_NAME\""
  else
    of_whole write_outcome finished ''
    finish_run
    of_whole event finished
  fi
}

give_up() {
  event failed ",\"reason\":\"$(json_text "$1")\""
  if is_shard; then end_shard given-up "$1"; else finish_run; fi
  echo "xgen: $1; the $(is_shard && echo shard || echo run) ends here" >&2
  exit 78
}

# refuse REASON: this attempt cannot run here, nor can another.
refuse() {
  write_outcome "$ATTEMPT" refused "$1"
  give_up "$1"
}

# The attempt's number, its folder and its log. A requeue under the same job id gets a folder of its own too.
begin_attempt() {
  ! is_shard || begin_shard
  exec 9>>"$RUN/.lock"
  local last locked reached
  flock -E 75 -w 600 9 # a file system keeps the lock of a node that died for a minute or two
  locked=$?
  if [ "$locked" -eq 75 ]; then
    echo "xgen: another job runs $RUN_NAME; job $JOB leaves it alone" >&2
    exit 78
  elif [ "$locked" -ne 0 ]; then
    echo "xgen: $RUN/.lock cannot be locked: mount the file system with locks" >&2
    exit 1
  fi
  last=$(find "$RUN/attempts" -mindepth 2 -name outcome.json | sort | tail -n 1)
  if [ -n "$SERVES" ] && [ -e "$WHOLE/ended" ]; then
    echo "xgen: $RUN_NAME has ended; job $JOB has nothing to serve" >&2
    end_shard finished
    exit 0
  fi
  case $SERVES$(field "$last" status) in # one that serves may have done so before the run was resumed
    finished | stage_finished)
      reached=$(field "$last" stage)
      if [ "${reached:-0}" -ge "$STAGE" ]; then
        echo "xgen: $RUN_NAME has finished${STAGE_NAME:+ stage $STAGE_NAME}; job $JOB has nothing to do" >&2
        ! is_shard || end_shard finished
        exit 0
      fi
      ;;
  esac
  ATTEMPT=1
  while ! mkdir "$(attempt_dir "$ATTEMPT")" 2>/dev/null; do
    [ -d "$(attempt_dir "$ATTEMPT")" ] || { echo "xgen: cannot write to $RUN/attempts" >&2; exit 1; }
    ATTEMPT=$((ATTEMPT + 1))
  done
  ATTEMPT_DIR=$(attempt_dir "$ATTEMPT")
  exec >>"$ATTEMPT_DIR/out.log" 2>>"$ATTEMPT_DIR/err.log"
  cp -- "$0" "$ATTEMPT_DIR/sbatch.sh"
  mkdir -p "${DISCOVERY_FILE%/*}" # before the container starts: it is one of its mounts
  # A host that died within a line of the events must not take the next line with it.
  [ -z "$(tail -c 1 "$RUN/events/host.jsonl" 2>/dev/null)" ] || echo >>"$RUN/events/host.jsonl"
  event started ",\"nodes\":\"$SLURM_JOB_NODELIST\"${STAGE_NAME:+,\"stage\":\"$STAGE_NAME\"}"
  if [ -e "$WHOLE/cancelled" ]; then
    write_outcome "$ATTEMPT" cancelled "the run was cancelled"
    finish_run
    event cancelled
    exit 75
  fi
  if is_shard; then
    [ ! "$WHOLE/resumed" -nt "$last" ] || RESUMED=1 # the run's own is for all shards: none removes it
  elif [ -e "$RUN/resumed" ]; then
    RESUMED=1
  fi
  settle_predecessor
  rm -f "$RUN/resumed"
}

# record_environment FILE: names and values of the environment of the tasks, for reproduction; what looks like a secret
# is left out.
record_environment() {
  local name
  for name in $(compgen -e | sort); do
    case $name in
      *TOKEN* | *SECRET* | *PASSW* | *API_KEY* | *APIKEY* | *CREDENTIAL* | *PRIVATE_KEY*) printf '%s=***\n' "$name" ;;
      *) printf '%s=%q\n' "$name" "${!name}" ;;
    esac
  done >"$1"
}

# The first node of the job leads, at the address by which SLURM itself reaches it: names may mean nothing in the
# container, and a host's own idea of its address is often 127.0.1.1. The port is new in each attempt: the old one may
# linger, or belong to a rank that does not die.
choose_rendezvous() {
  local first
  first=$(timeout 60 scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  MASTER_ADDR=$(timeout 60 scontrol show node "$first" | sed -nE 's/.*NodeAddr=([^ ]+).*/\1/p' | head -n 1)
  if [ -z "$MASTER_ADDR" ]; then
    echo "xgen: scontrol does not say where the job's first node is" >&2
    decide
  fi
  MASTER_PORT=$((20000 + (SLURM_JOB_ID * 61 + ATTEMPT * 7) % 12000))
  while (exec 3<>"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do MASTER_PORT=$((MASTER_PORT + 1)); done
  export MASTER_ADDR MASTER_PORT
}

# Run the tasks (`run_tasks` is rendered for each job) and wait. In a subshell, so that no variable of the job reaches
# the decision, and in the background, because bash runs a trap only between commands: the TERM is on record before the
# KILL that may follow.
launch() {
  local told=
  if [ -n "$TERMINATED" ]; then # before there was anything to stop
    event signal ',"signal":"SIGTERM"'
    decide
  fi
  run_tasks </dev/null 9>&- &
  while :; do
    wait $!
    TASKS_EXIT=$?
    if [ -n "$TERMINATED" ] && [ -z "$told" ]; then
      told=1
      event signal ',"signal":"SIGTERM"'
    fi
    kill -0 $! 2>/dev/null || break
  done
  wait $!
  TASKS_EXIT=$?
  [ "$TASKS_EXIT" -eq 0 ] || [ ! -e "$ATTEMPT_DIR/cleanup.sh" ] || on_every_node 30 "$ATTEMPT_DIR/cleanup.sh"
  event exited ",\"exit_code\":$TASKS_EXIT"
}

# on_every_node SECONDS SCRIPT: once on each node of the job, with the environment of the tasks (`set_environment` and
# $EXPORT are rendered for each job).
on_every_node() (
  set_environment
  exec timeout -k 10 "$1" srun --export="$EXPORT" --overlap --ntasks="$SLURM_NNODES" --ntasks-per-node=1 \
    --kill-on-bad-exit=1 --label bash "$2" </dev/null 9>&-
)

# not_ready WHAT: a node could not get ready. Another try may have other nodes.
not_ready() {
  NOT_READY="$1 could not be made ready on every node, see err.log"
  decide
}

# same_image FILE SIZE MTIME: every attempt starts the bits that were there at submission.
same_image() {
  local found
  found=$(stat -c '%s %Y' -- "$1") || not_ready "the image $1"
  [ "$found" = "$2 $3" ] || refuse "the image $1 is not the one that was submitted; restore it, or submit anew"
}

count() { grep -ls "\"status\":\"$1\"" "$ATTEMPT_DIR"/outcome.[0-9]*.json | wc -l; }

# first STATUS: rank and reason of the earliest outcome with this status.
first() {
  local file best='' best_time='' time rank
  while read -r file; do
    time=$(field "$file" time)
    if [ -z "$best" ] || [[ $time < $best_time ]]; then best=$file best_time=$time; fi
  done < <(grep -ls "\"status\":\"$1\"" "$ATTEMPT_DIR"/outcome.[0-9]*.json)
  rank=${best##*/outcome.}
  printf 'rank %s: %s' "${rank%.json}" "$(reason "$best")"
}

# reason FILE: the reason in an outcome, which may hold any text but is never followed by another reason.
reason() {
  sed -nE 's/.*"reason":"(.*)","?(step|durable_step|time)":.*/\1/p' "$1" | sed -E 's/\\(["\\])/\1/g'
}

# Killed by the stop signal before its handler was armed: no rank left an outcome, and the first that srun speaks of
# died of the signal, or of the exit code by which a container runtime tells of it (128 and the signal's number). Only
# the first counts: the others are terminated by srun, whatever ended that one.
died_unarmed() {
  [ -z "$(ls "$ATTEMPT_DIR"/outcome.[0-9]*.json 2>/dev/null)" ] &&
    grep -sE 'srun: error: .*: tasks? [0-9,-]+: ' "$ATTEMPT_DIR/err.log" | head -n 1 |
    grep -qE ': (User defined signal 2|Terminated|Exited with exit code (140|143))'
}

job_record() { timeout 20 scontrol show job -o "$JOB" 2>/dev/null; }

# Cancelled by a person: by `xgen cancel`, or by scancel. SLURM shows a dying job as COMPLETING only, but one that it
# will start again has had its restarts counted already, and says PreemptTime only in partitions that preempt (seen in
# 22.05).
was_cancelled() {
  [ -e "$WHOLE/cancelled" ] && return 0
  case $1 in
    *JobState=CANCELLED*) return 0 ;;
    *PreemptTime=[0-9]*) return 1 ;;
    *JobState=COMPLETING*" Restarts=${SLURM_RESTART_COUNT:-0} "*) ;;
    *) return 1 ;;
  esac
  [ -n "$TERMINATED" ] && [ "$SECONDS" -lt $((TIME_LIMIT - 65)) ]
}

# Why the attempt was told to stop, in the words of the ledger.
stop_reason() {
  local record=$1
  case $record in
    *PreemptTime=[0-9]*) echo preempted ;;
    *)
      if [ "$SECONDS" -ge $((TIME_LIMIT - LEAD - 65)) ]; then echo time_limit; else echo other; fi
      ;;
  esac
}

# THE REQUEUE DECISION. The files decide, not the exit code: srun returns the highest code, and --kill-on-bad-exit
# makes 137 of an early one. Wrong spec > first crash > stopped > finished; a rank without an outcome crashed,
# unless it was told to stop.
decide() {
  local record finished cause
  record=$(job_record)
  cause=$(stop_reason "$record")
  finished=$(count finished)
  rm -f "$DISCOVERY_FILE"
  if [ "$(count refused)" -gt 0 ]; then
    refuse "$(first refused)"
  elif [ "$finished" -lt "$NUM_TASKS" ] && was_cancelled "$record"; then
    write_outcome "$ATTEMPT" cancelled "cancelled by a person"
    event cancelled
    if is_shard && [ ! -e "$WHOLE/cancelled" ]; then end_shard given-up "cancelled by a person"; else finish_run; fi
    exit 75
  elif [ "$(count crashed)" -gt 0 ]; then
    write_outcome "$ATTEMPT" crashed "$(first crashed)"
  elif [ "$finished" -eq "$NUM_TASKS" ] && is_shard; then
    write_outcome "$ATTEMPT" finished ''
    event finished
    end_shard finished
    exit 0
  elif [ "$finished" -eq "$NUM_TASKS" ] && [ "$STAGE" -lt "$LAST_STAGE" ]; then
    write_outcome "$ATTEMPT" stage_finished ''
    event stage_finished ",\"stage\":\"$STAGE_NAME\""
    exit 0 # what the next stage's job waits for
  elif [ "$finished" -eq "$NUM_TASKS" ]; then
    write_outcome "$ATTEMPT" finished ''
    finish_run
    event finished
    exit 0
  elif [ $(($(count stopped) + finished)) -eq "$NUM_TASKS" ]; then
    write_outcome "$ATTEMPT" stopped "saved and stopped on request" "$cause"
  elif [ -n "$TERMINATED" ] || was_signalled "$ATTEMPT"; then
    write_outcome "$ATTEMPT" stopped "told to stop, and killed before it had saved" "$cause"
  elif died_unarmed; then
    write_outcome "$ATTEMPT" stopped "told to stop before the handler was armed" "$cause"
  else
    write_outcome "$ATTEMPT" crashed "${NOT_READY:-$((NUM_TASKS - finished - $(count stopped))) of $NUM_TASKS ranks ended without an outcome (srun: ${TASKS_EXIT-not started})}"
  fi

  if [ "$OUTCOME" = stopped ]; then
    [ "$cause" != time_limit ] || [ "$FAILURES" -lt "$MAX_FAILURES" ] ||
      give_up "$FAILURES attempts in a row came to their time limit without a new checkpoint"
    requeue "$cause"
    exit 75
  fi
  echo "xgen: $REASON" >&2
  [ "$FAILURES" -lt "$MAX_FAILURES" ] || give_up "$REASON"
  requeue crashed
  exit 1
}

# requeue REASON: the same job again. `Incomplete` leaves a cancelled job cancelled, where a plain requeue would
# bring it back to life. The event comes first: the call kills this script.
requeue() {
  local answer code
  event requeued ",\"reason\":\"$1\""
  while :; do
    answer=$(timeout 60 scontrol requeue Incomplete "$JOB" 2>&1)
    code=$?
    case $code:$answer in
      0:*) return ;;
      *pending*) return ;; # SLURM has requeued it itself, after a preemption
      *disabled* | *"Only batch"*)
        successor
        return
        ;;
    esac
    # An upgrade of the controller takes minutes. This job may wait as long as it lives, and loses nothing by it.
    echo "xgen: cannot requeue yet: $answer" >&2
    [ "$SECONDS" -lt "$TIME_LIMIT" ] || exit 1
    sleep "$REQUEUE_PAUSE"
  done
}

# A new job for the same run where SLURM refuses to requeue this one. This script holds the run's lock, and the
# dependency keeps the new job waiting until this one has ended: the run is never two. A shard ends well then: what waits
# for the array waits for the rest of it, and for the new job.
successor() {
  local answer next options=(--parsable --dependency=afterany:"$JOB")
  ! is_shard || options+=(--array="$SHARD")
  answer=$(timeout 60 sbatch "${options[@]}" "$ATTEMPT_DIR/sbatch.sh" 2>&1) ||
    give_up "requeue is refused here, and so is a successor: $answer"
  next=${answer%%;*}
  ! is_shard || [ -n "$SERVES" ] || ln -s "$(readlink "$OF_WHOLE")" "$ARRAY/.job-$next" # of the same array to the run
  event queued ",\"reason\":\"successor of job $JOB: $next\""
  hand_over "$next" || { ! is_shard || exit 1; }
  ! is_shard || exit 0
}

# hand_over JOB: the job of the next stage, which waits for this one, waits for JOB from now on; of an array, for JOB too.
# Nothing waits for what serves it.
hand_over() (
  exec 8>>"$WHOLE/jobs/.lock"
  flock -w 60 8
  jobs=$1
  if is_shard; then
    jobs=$(cat "$WHOLE/jobs/$STAGE" 2>/dev/null)
    jobs="${jobs:-$SLURM_ARRAY_JOB_ID}:$1"
  fi
  echo "$jobs" >"$WHOLE/jobs/.$STAGE.tmp" && mv "$WHOLE/jobs/.$STAGE.tmp" "$WHOLE/jobs/$STAGE"
  next=$(cat "$WHOLE/jobs/$((STAGE + 1))" 2>/dev/null)
  if [ -n "$SERVES" ] || [ -z "$next" ] || timeout 60 scontrol update JobId="$next" Dependency=afterok:"$jobs"; then exit 0; fi
  echo "xgen: job $next of the next stage does not wait for job $1: write xgen resume $RUN_NAME once it ends" >&2
  exit 1
)
