# THE REQUEUE DECISION, and what it is made of.

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

# show_job JOB [NAME]: what scontrol says of a job of this run, and why it says nothing. A controller that lost its memory
# gives numbers a second time: of a job with another name nothing is known here. Of the local executor it is its own
# scontrol that knows, and no SLURM that may be here too.
show_job() {
  SLURM_TIME_FORMAT=%s timeout -s KILL 20 "${NO_SCHEDULER:+$WHOLE/local/bin/}scontrol" show job -o "$1" 2>&1 |
    sed -E "/ JobName=/{/ JobName=${2:-$RUN_NAME} /!s/.*/Invalid job id: another has it now/}"
}

job_record() { show_job "$JOB" | grep JobState=; }

# limit RECORD: seconds that the job has. The queue may give it less than it asked for, or a person more.
limit() {
  local text days=0 hours minutes seconds
  text=$(sed -nE 's/.* TimeLimit=([0-9:-]+) .*/\1/p' <<<"$1")
  [ -n "$text" ] || { echo "$TIME_LIMIT"; return; }
  [ "$text" = "${text#*-}" ] || { days=${text%%-*} text=${text#*-}; }
  IFS=: read -r hours minutes seconds <<<"$text"
  echo $((10#$days * 86400 + 10#$hours * 3600 + 10#$minutes * 60 + 10#$seconds))
}

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
  [ -n "$TERMINATED" ] && [ "$SECONDS" -lt $(($(limit "$1") - 65)) ]
}

# say_cancelled: the run has ended before anybody can hear of it, and resume it.
say_cancelled() {
  if is_shard && [ ! -e "$WHOLE/cancelled" ]; then
    event cancelled
    end_shard given-up "cancelled by a person"
  else
    finish_run
    event cancelled
  fi
}

# SLURM will start the job again by itself, as after the loss of a node: it counts the restart at once (seen in 22.05). It
# may tell the tasks only, or nobody.
is_taken_back() {
  [ -z "${SETTLED_BY-}" ] || return 1 # of whoever settles, no restart is known
  case $1 in
    *" Restarts=${SLURM_RESTART_COUNT:-0} "*) return 1 ;;
    *" Restarts="[0-9]*) return 0 ;;
    *) return 1 ;;
  esac
}

# Why the attempt was told to stop, in the words of the ledger.
stop_reason() {
  local record=$1
  case $record in
    *PreemptTime=[0-9]*) echo preempted ;;
    *)
      if [ "$SECONDS" -ge $(($(limit "$record") - LEAD - 65)) ]; then echo time_limit; else echo other; fi
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
    say_cancelled
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
  elif [ -n "$TERMINATED" ] || was_signalled "$ATTEMPT" || is_taken_back "$record"; then
    write_outcome "$ATTEMPT" stopped "told to stop, and killed before it had saved" "$cause"
  elif died_unarmed; then
    write_outcome "$ATTEMPT" stopped "told to stop before the handler was armed" "$cause"
  elif [ -n "${SETTLED_BY-}" ]; then
    write_outcome "$ATTEMPT" lost "no outcome: the batch script was killed or its node was lost"
  else
    write_outcome "$ATTEMPT" crashed "${NOT_READY:-$((NUM_TASKS - finished - $(count stopped))) of $NUM_TASKS ranks ended without an outcome (srun: ${TASKS_EXIT-not started})}"
  fi

  blame_nodes
  if [ "$OUTCOME" = stopped ]; then
    [ "$cause" != time_limit ] || [ "$FAILURES" -lt "$MAX_FAILURES" ] ||
      give_up "$FAILURES attempts in a row came to their time limit without a new checkpoint"
    requeue "$cause"
    exit 75
  fi
  echo "xgen: $REASON" >&2
  [ "$FAILURES" -lt "$MAX_FAILURES" ] || give_up "$REASON"
  requeue "$OUTCOME"
  exit 1
}
