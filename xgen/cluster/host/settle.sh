# What ended without a decision, settled by somebody else: the next `xgen` command, the exporter, or a guard job.

# settle WHO: the decision about the last attempt, as `decide` takes it. Prints what is to follow, and no more:
#   again SECONDS   a new job, after the back-off      over   nothing      running   it has not ended
#   unknown         SLURM does not say whether a person cancelled the job that waited
# A second call continues what one before began. It exits: call it in a subshell.
settle() {
  SETTLED_BY=$1
  ATTEMPT=$(newest_attempt "$RUN")
  ATTEMPT_DIR=$(attempt_dir "$ATTEMPT")
  exec 9>>"$RUN/.lock"
  flock -n 9 || { echo running; exit; } # its node has lost the controller, not its life
  ! goes_on || { echo running; exit; }
  status=$(field "$ATTEMPT_DIR/outcome.json" status)
  JOB=$(started "$ATTEMPT" | sed -nE 's/.*"job_id":"([^"]*)".*/\1/p')
  [ -z "$status" ] && [ "$ATTEMPT" -gt 0 ] || is_shard || JOB=$(sed 's/.*://' "$WHOLE/jobs/$STAGE" 2>/dev/null || echo "$JOB") # the one that waited
  [ -n "$JOB" ] || { echo unknown; exit; } # it is being submitted, or its client died
  record=$(last_word)
  case $record in *JobState=RUNNING* | *JobState=COMPLETING* | *JobState=PENDING* | *JobState=CONFIGURING*)
    [ -n "${NO_SCHEDULER-}" ] || { echo running; exit; } ;;
  esac
  FAILURES=$(field "$ATTEMPT_DIR/outcome.json" failures) FAILURES=${FAILURES:-0}
  case $ATTEMPT:$status in
    0: | *:stage_finished) settle_unbegun ;;
    *:) say_settled "attempt $ATTEMPT ended without a decision" && conclude ;;
    *:cancelled | *:refused) # a person has resumed the run, and its job has not begun
      if was_resumed "$ATTEMPT_DIR/outcome.json"; then settle_unbegun; else echo over; fi
      ;;
    *:stopped | *:crashed | *:lost)
      case $record:$(last_event) in
        *JobState=CANCELLED*)
          say_settled "job $JOB was cancelled while it waited"
          say_cancelled
          echo over
          ;;
        *JobState=LOST*) has_ended || follow_lost "$(backoff "$status")" ;;
        *JobState=[A-Z]* | *:settled) has_ended || follow "$(backoff "$status")" ;;
        *) echo unknown ;;
      esac
      ;;
    *) echo over ;;
  esac
}

# settle_unbegun: no attempt of this stage has begun, and its job is gone. A job whose dependency is never met SLURM itself
# cancels: so its reason says, and in the accounting nobody is named who did (seen in 22.05).
settle_unbegun() {
  case $record in
    *JobState=LOST* | *Reason=DependencyNeverSatisfied* | JobState=CANCELLED | *JobState=NODE_FAIL* | \
      *JobState=BOOT_FAIL* | *JobState=PREEMPTED* | *JobState=TIMEOUT*) follow_lost 0 ;; # a node that never came to it, too
    *JobState=CANCELLED*)
      [ "$ATTEMPT" -eq 0 ] || { echo over; return; }
      say_settled "job $JOB was cancelled while it waited"
      say_cancelled
      echo over
      ;;
    *) [ "$ATTEMPT" -gt 0 ] && echo over || echo unknown ;;
  esac
}

# follow_lost SECONDS: the job was lost before it began; another follows. Not for ever: what takes it away each time is for a
# person to find. And not after a week: the accounting may have forgotten that somebody cancelled it.
follow_lost() {
  local times
  times=$(grep -sc "\"attempt\":$ATTEMPT,.*was lost before it began" "$RUN/events/host.jsonl")
  if [ "${times:-0}" -ge "$MAX_FAILURES" ] ||
    [ -z "$(find "$WHOLE/jobs/$STAGE" "$ATTEMPT_DIR/outcome.json" -mtime -7 2>/dev/null)" ]; then
    echo unknown
  else
    say_settled "job $JOB was lost before it began"
    follow "$1"
  fi
}

# has_ended: the batch script was killed after it had decided that nothing follows, and before it had said so.
has_ended() {
  ! was_resumed "$ATTEMPT_DIR/outcome.json" || return 1
  [ "$FAILURES" -ge "$MAX_FAILURES" ] || { ! is_shard && [ -e "$WHOLE/ended" ]; } || return 1
  (give_up "$(reason "$ATTEMPT_DIR/outcome.json")") 2>/dev/null
  echo over
}

# goes_on: whether a newer job of the run is there. Where SLURM does not say, it may be.
goes_on() {
  local job answer
  [ -z "${NO_SCHEDULER-}" ] && ! is_shard || return 1
  for job in $(tr : ' ' <"$WHOLE/jobs/$STAGE" 2>/dev/null); do
    answer=$(show_job "$job")
    case $answer in
      *JobState=PENDING* | *JobState=RUNNING* | *JobState=CONFIGURING* | *JobState=SUSPENDED*) return 0 ;;
      *JobState=* | *"nvalid job id"*) ;;
      *) return 0 ;;
    esac
  done
  return 1
}

# last_word: what SLURM says of the job, from its memory, which forgets after minutes, or from its accounting. LOST is one
# that the controller does not know, and whose end nobody wrote down: killed before it had saved its state. The local
# executor has no accounting: a SLURM that is here too speaks of another job with that number.
last_word() {
  local said states
  said=$(show_job "$JOB")
  case $said in *JobState=*) echo "$said" && return ;; esac
  [ -z "${NO_SCHEDULER-}" ] || return
  states=$(timeout -s KILL 60 sacct --allocations --noheader --parsable2 --format=State --jobs="$JOB" --name="$RUN_NAME" 2>/dev/null) || return
  states=$(sort -u <<<"$states")
  case $states in *$'\n'*) return ;; esac # of each shard of an array something else
  case $said in *"nvalid job id"*)
    case $states in '' | PENDING | RUNNING | SUSPENDED | REQUEUED) states=LOST ;; esac ;;
  esac
  echo "${states:+JobState=$states}"
}

last_event() { tail -n 1 "$RUN/events/host.jsonl" | sed -nE 's/.*"event":"([a-z_]*)".*/\1/p'; }

say_settled() { event settled ",\"reason\":\"$(json_text "$1")\",\"action\":\"$(json_text "$SETTLED_BY")\""; }

# conclude: `decide`, in which a new job is a word. Where it ends the run there is nothing to follow.
conclude() {
  local said last_word=$record
  job_record() { echo "$last_word"; } # `decide` has a record of its own
  requeue() { follow "$(backoff "$1")"; exit 0; }
  SECONDS=$(held_seconds "$ATTEMPT")
  said=$(decide 2>/dev/null)
  echo "${said:-over}"
}

follow() {
  local why
  if [ -e "$WHOLE/cancelled" ]; then
    echo over
  elif why=$(over_budget); then
    (give_up "$why") 2>/dev/null
    echo over
  else
    echo "again $1"
  fi
}
