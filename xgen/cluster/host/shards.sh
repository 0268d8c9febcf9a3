# Shards of a job array.

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
  [ ! -e "$WHOLE/points" ] || ln -sfn "../../../points/$SHARD.yaml" "$RUN/spec.yaml" # of a sweep
  [ -d "$OF_WHOLE" ] || begin_array || exit 1
}

# begin_array: the first of its shards takes an attempt of the whole run, which the run's own events speak of; .job-ARRAY
# is a link to its folder.
begin_array() (
  [ -z "$SERVES" ] || exec mkdir -p "$OF_WHOLE"
  exec 8>>"$ARRAY/.lock"
  flock -w 600 8
  [ ! -d "$OF_WHOLE" ] || exit 0
  number=$(new_attempt "$WHOLE") || exit 1
  ln -s "../../attempts/$(printf %04d "$number")" "$OF_WHOLE" || exit 1
  of_whole event started ",\"nodes\":\"$SLURM_JOB_NODELIST\"${STAGE_NAME:+,\"stage\":\"$STAGE_NAME\"}"
)

# of_whole event|write_outcome …: say it of the whole run, in the attempt that the array is.
of_whole() {
  local RUN=$WHOLE JOB=$SLURM_ARRAY_JOB_ID NUM_GPUS=0 ATTEMPT OUTCOME REASON FAILURES # what is called sees these, and sets these
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
