# The guard job: it starts when the run's job has ended badly, and settles what that left undecided.

guard() {
  local said began
  TIME_LIMIT=500 # it asks no longer: unknown is not gone, and the next command settles
  ATTEMPT=$(newest_attempt "$RUN")
  ATTEMPT_DIR=$(attempt_dir "$ATTEMPT")
  began=$(started "$ATTEMPT")
  case $began in *"\"stage\":\"$STAGE_NAME\""*) ;; *) [ -n "$began" ] && [ -z "$STAGE_NAME" ] || exit 0 ;; esac
  # Where SLURM has lost the node of the job its batch script may live on for a while, and decide, or be killed before.
  flock -w 120 "$RUN/.lock" true
  exec 6>>"$RUN/.resume.lock"
  flock -w 300 6 || exit 0 # a person resumes it, or settles it
  until said=$(timeout -s KILL 60 squeue --noheader --name="$RUN_NAME" --format='%i %T %r'); do
    [ "$SECONDS" -lt "$TIME_LIMIT" ] || exit 1
    sleep "$REQUEUE_PAUSE"
  done
  grep -qv ' PENDING Dependency' <<<"$said" && [ -n "$said" ] && exit 0 # it goes on already
  said=$(settle "guard job $SLURM_JOB_ID")
  if [ "$said:$(field "$ATTEMPT_DIR/outcome.json" status)" = over:stage_finished ] && [ "$STAGE" -lt "$LAST_STAGE" ]; then
    said="again 0" # the next stages wait for a job that ends well: this stage's, which finds that it has nothing to do
  fi
  echo "xgen: guard of job $(cat "$WHOLE/jobs/$STAGE"): $said"
  case $said in again*) ;; *) exit 0 ;; esac
  FAILURES=$(field "$ATTEMPT_DIR/outcome.json" failures)
  JOB=$(sed 's/.*://' "$WHOLE/jobs/$STAGE")
  successor "${said#again }" # which another job guards: this one has started
  submit_rest
}

# submit_rest: the jobs of the stages after this one, which SLURM has removed, wait for it again.
submit_rest() {
  local stage old new before
  before=$(cat "$WHOLE/jobs/$STAGE")
  for ((stage = STAGE + 1; stage <= LAST_STAGE; stage++)); do
    old=$(cat "$WHOLE/jobs/$stage")
    if ! have_wait "$old" afterok:"$before"; then
      new=$(submit_job --parsable --dependency=afterok:"$before" "$WHOLE/jobs/$stage.sh") || exit 1
      new=${new%%;*}
      write_whole "$WHOLE/jobs/$stage" "$new"
      event queued ",\"reason\":\"job $old of stage $stage had been removed: $new\""
      guard_job "$stage" "$new"
      old=$new
    fi
    before=$old
  done
  [ "$STAGE" -eq "$LAST_STAGE" ] || repoint "$before"
}
