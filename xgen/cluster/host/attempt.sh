# The beginning of an attempt, and its end for good.

give_up() {
  is_shard || finish_run # before anybody can hear that it has ended, and resume it
  event failed ",\"reason\":\"$(json_text "$1")\""
  ! is_shard || end_shard given-up "$1"
  echo "xgen: $1; the $(is_shard && echo shard || echo run) ends here" >&2
  exit 78
}

# refuse REASON: this attempt cannot run here, nor can another.
refuse() {
  is_shard || finish_run
  write_outcome "$ATTEMPT" refused "$1"
  give_up "$1"
}

# stay_held: a run that a person holds (`xgen hold`) may start all the same: SLURM itself requeued its job, or a job of a
# later stage was not in the queue yet. Back it goes.
stay_held() {
  echo "xgen: $RUN_NAME is held; xgen release $RUN_NAME lets it go on" >&2
  if timeout -s KILL 60 scontrol requeuehold Incomplete "$JOB"; then let_go "$JOB"; else successor; fi
  exit 75
}

# leave_ended: a submission may be heard late, or SLURM start a job again, of a run that has failed or was cancelled since.
# The marker goes when somebody resumes it.
leave_ended() {
  [ -z "$SERVES" ] && [ -e "$WHOLE/ended" ] || return 0
  echo "xgen: $RUN_NAME has ended; job $JOB leaves it so, xgen resume $RUN_NAME does not" >&2
  exit 78
}

# was_resumed OUTCOME: whether a person resumed the run after it.
was_resumed() { [ "$WHOLE/resumed" -nt "$1" ]; }

# newest_attempt RUN: its number, 0 for none.
newest_attempt() {
  local newest
  newest=$(find "$1/attempts" -mindepth 1 -maxdepth 1 -name '[0-9]*' -printf '%f\n' | sort -n | tail -n 1)
  echo $((10#${newest:-0}))
}

# new_attempt RUN: make the folder of the next one, and print its number. Whoever does so at the same time gets another.
new_attempt() {
  local number dir
  number=$(newest_attempt "$1")
  while :; do
    number=$((number + 1))
    dir=$(printf '%s/attempts/%04d' "$1" "$number")
    ! mkdir "$dir" 2>/dev/null || break
    [ -d "$dir" ] || { echo "xgen: cannot write to $1/attempts" >&2; return 1; }
  done
  echo "$number"
}

# The attempt's number, its folder and its log. A requeue under the same job id gets a folder of its own too.
begin_attempt() {
  ! is_shard || { leave_ended && begin_shard; }
  exec 9>>"$RUN/.lock"
  local last locked reached spent_all since
  flock -E 75 -w 600 9 # a file system keeps the lock of a node that died for a minute or two
  locked=$?
  if [ "$locked" -eq 75 ]; then
    echo "xgen: another job runs $RUN_NAME; job $JOB leaves it alone" >&2
    exit 78
  elif [ "$locked" -ne 0 ]; then
    echo "xgen: $RUN/.lock cannot be locked: mount the file system with locks" >&2
    exit 1
  fi
  [ ! -e "$WHOLE/held" ] || [ -e "$WHOLE/cancelled" ] || stay_held
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
  is_shard || was_resumed "$last" || leave_ended # a batch script that was about to end may have put the marker back
  ATTEMPT=$(new_attempt "$RUN") || exit 1
  ATTEMPT_DIR=$(attempt_dir "$ATTEMPT")
  exec >>"$ATTEMPT_DIR/out.log" 2>>"$ATTEMPT_DIR/err.log"
  cp -- "$0" "$ATTEMPT_DIR/sbatch.sh"
  mkdir -p "${DISCOVERY_FILE%/*}" # before the container starts: it is one of its mounts
  # A host that died within a line of the events must not take the next line with it.
  [ -z "$(tail -c 1 "$RUN/events/host.jsonl" 2>/dev/null)" ] || echo >>"$RUN/events/host.jsonl"
  since=$(allocated)
  event started ",\"nodes\":\"$SLURM_JOB_NODELIST\"${STAGE_NAME:+,\"stage\":\"$STAGE_NAME\"}${since:+,\"allocated\":$since}"
  SECONDS=$(held_seconds "$ATTEMPT") # as SLURM counts the time limit
  if [ -e "$WHOLE/cancelled" ]; then
    write_outcome "$ATTEMPT" cancelled "the run was cancelled"
    finish_run
    event cancelled
    exit 75
  fi
  if is_shard; then
    ! was_resumed "$last" || RESUMED=1 # the run's own is for all shards: none removes it
  elif [ -e "$RUN/resumed" ]; then
    RESUMED=1
  fi
  settle_predecessor
  blame_lost_nodes
  ! spent_all=$(over_budget) || refuse "$spent_all"
  rm -f "$RUN/resumed"
}
