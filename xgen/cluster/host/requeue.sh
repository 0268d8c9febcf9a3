# The next attempt: the same job again, or a successor.

# requeue REASON: by the means that the policy names, after the back-off. `Incomplete` leaves a cancelled job cancelled,
# where a plain requeue would bring it back to life. The event comes first: the call kills this script.
requeue() {
  local answer code pause how=requeue
  ! answer=$(over_budget) || give_up "$answer"
  pause=$(backoff "$1")
  event requeued ",\"reason\":\"$1\",\"action\":\"$RESTART_BY\"$([ "$pause" -eq 0 ] || echo ",\"seconds\":$pause")"
  if [ "$RESTART_BY" = successor ]; then
    successor "$pause"
    return
  fi
  [ ! -e "$WHOLE/held" ] || how=requeuehold
  while :; do
    answer=$(timeout -s KILL 60 scontrol "$how" Incomplete "$JOB" 2>&1)
    code=$?
    case $code:$answer in
      0:* | *pending*) # pending: SLURM has requeued it itself, after a preemption
        if was_requeued; then
          wait_until "$pause"
          keep_off "$JOB"
          [ "$how" = requeue ] || let_go "$JOB"
        else
          successor "$pause"
        fi
        return
        ;;
      *disabled* | *"Only batch"*)
        successor "$pause"
        return
        ;;
    esac
    # An upgrade of the controller takes minutes. This job may wait as long as it lives, and loses nothing by it.
    echo "xgen: cannot requeue yet: $answer" >&2
    [ "$SECONDS" -lt "$TIME_LIMIT" ] || exit 1
    sleep "$REQUEUE_PAUSE"
  done
}

# SLURM says yes and does nothing for a job that has ended for it: at a time limit, or preempted where PreemptMode is
# CANCEL. It counts the restarts of one that it will start again (seen in 22.05).
was_requeued() {
  case $(job_record) in *JobState=PENDING*) ;; *" Restarts=${SLURM_RESTART_COUNT:-0} "*) return 1 ;; esac
}

# leave_cancelled: a person's scancel may have come while this was decided; nothing brings that job back.
leave_cancelled() {
  TERMINATED=1
  was_cancelled "$(job_record)" || return 0
  say_cancelled
  exit 75
}

# wait_until SECONDS: the requeued job starts no sooner. It takes this while this script ends, and not before (22.05).
wait_until() {
  [ "$1" -eq 0 ] || timeout -s KILL 20 scontrol update JobId="$JOB" StartTime="now+$1" ||
    echo "xgen: SLURM starts job $JOB again sooner than in $1 s" >&2
}

# let_go JOB: the run was released while its next job was being held: nobody else would release that.
let_go() { [ -e "$WHOLE/held" ] || timeout -s KILL 60 scontrol release "$1"; }

# submit_job ARGS…: sbatch, with no more of this environment than a client has: SLURM exports all of it (xgen/cluster/slurm.py).
submit_job() {
  local name without=()
  for name in $(compgen -e); do
    case " $FROM_CLIENT " in *" $name "*) ;; *) without+=("--unset=$name") ;; esac
  done
  timeout -s KILL 60 env "${without[@]}" sbatch "$@"
}

# A new job for the same run. This script holds the run's lock, and the dependency keeps the new job waiting until this one
# has ended: the run is never two. A shard ends well then: what waits for the array waits for the rest of it, and for the
# new job.
successor() {
  local answer next word script=${ATTEMPT_DIR:+$ATTEMPT_DIR/sbatch.sh} options=(--parsable --dependency=afterany:"$JOB")
  leave_cancelled
  ! is_shard || options+=(--array="$SHARD")
  [ "${1:-0}" -eq 0 ] || options+=(--begin="now+$1")
  [ ! -e "$WHOLE/held" ] || options+=(--hold)
  : "${script:=$0}" # no attempt has begun
  word="after:$JOB:$ATTEMPT"
  options+=(--comment="${STAGE_NAME:+stage:$STAGE_NAME }$word")
  until answer=$(submit_job "${options[@]}" "$script" 2>&1); do
    case $answer in
      *ontact* | *"imed out"* | *"Zero Bytes"* | '') ;; # the controller is away: as above
      *"ependency problem"*) # SLURM has forgotten this job: a guard calls, which has waited for long
        [ -n "${options[1]-}" ] || give_up "job $JOB is over, and a successor is refused: $answer"
        unset 'options[1]'
        continue
        ;;
      *) give_up "job $JOB cannot be requeued, and a successor is refused: $answer" ;;
    esac
    echo "xgen: no answer to the submission of a successor: $answer" >&2
    while :; do # it may have been heard
      [ "$SECONDS" -lt "$TIME_LIMIT" ] || exit 1
      sleep "$REQUEUE_PAUSE"
      answer=$(timeout -s KILL 60 squeue --noheader --name="$RUN_NAME" --format='%i %k' 2>&1) && break
    done
    answer=$(grep -E " $word\$" <<<"$answer" | head -n 1) && break
  done
  next=${answer%%[;_ ]*}
  [[ ! " ${options[*]} " =~ ' --hold ' ]] || let_go "$next"
  ! is_shard || [ -n "$SERVES" ] || [ -e "$ARRAY/.job-$next" ] ||
    ln -s "$(readlink "$OF_WHOLE")" "$ARRAY/.job-$next" # of the same array to the run
  event queued ",\"reason\":\"successor of job $JOB: $next\""
  keep_off "$next"
  hand_over "$next" || { ! is_shard || exit 1; }
  ! is_shard || exit 0
}

# have_wait JOB TERMS [NAME]: a job of this run waits for others from now on.
have_wait() {
  case $(show_job "$1" "${3-}") in *"nvalid job id"*) return 1 ;; esac
  timeout -s KILL 60 scontrol update JobId="$1" Dependency="$2"
}

# hand_over JOB: who waits for this job waits for JOB from now on, of an array for JOB too: the job of the next stage, the
# guard, and steps of a pipeline. Nothing waits for what serves the run.
hand_over() (
  failed=0
  mkdir -p "$WHOLE/jobs"
  exec 8>>"$WHOLE/jobs/.lock"
  flock -w 60 8
  jobs=$1
  if is_shard; then
    jobs=$(cat "$WHOLE/jobs/$STAGE" 2>/dev/null)
    jobs="${jobs:-$SLURM_ARRAY_JOB_ID}:$1"
  fi
  write_whole "$WHOLE/jobs/$STAGE" "$jobs"
  [ -z "$SERVES" ] || exit 0
  guard=$(cat "$WHOLE/jobs/$STAGE.guard" 2>/dev/null)
  [ -z "$guard" ] || have_wait "$guard" afternotok:"$jobs" "$RUN_NAME.guard" ||
    guard_job "$STAGE" "$jobs" || echo "xgen: nobody guards job $1" >&2
  next=$(cat "$WHOLE/jobs/$((STAGE + 1))" 2>/dev/null)
  if [ -n "$next" ] && ! have_wait "$next" afterok:"$jobs"; then
    echo "xgen: job $next of the next stage does not wait for job $1: write xgen resume $RUN_NAME once it ends" >&2
    failed=1
  fi
  [ "$STAGE" -lt "$LAST_STAGE" ] || repoint "$jobs" || failed=1
  exit "$failed"
)

# guard_job STAGE JOBS: another guard, for the new job: the one before has started, as it does at once when SLURM loses the
# node of a job that it must not requeue, or was removed with what it guarded.
guard_job() {
  local new
  new=$(submit_job --parsable --dependency=afternotok:"$2" "$WHOLE/jobs/$1.guard.sh") || return 1
  write_whole "$WHOLE/jobs/$1.guard" "${new%%;*}"
}
