# What the attempts of a run have cost, and how long the next one waits.

# allocated: since when SLURM counts this start of the job, '' where nobody says: the prolog and the launch come before the
# script. It is the controller's clock: no sooner than the last word of anybody before this start, and not in the future.
allocated() {
  local at=${SLURM_JOB_START_TIME-} now # not in 22.05
  [ -n "$at" ] || at=$(job_record | sed -nE 's/.* StartTime=([0-9]+) .*/\1/p')
  [ -n "$at" ] || return 0
  at=$({ echo "$at"; tail -qn 1 "$RUN"/events/*.jsonl "$WHOLE/events/client.jsonl" 2>/dev/null |
    sed -nE 's/^\{"time":([0-9]+).*/\1/p'; } | sort -n | tail -n 1)
  now=$(date +%s)
  echo $((at < now ? at : now))
}

# held_seconds ATTEMPT: for which it had its nodes; of one that nobody saw the end of, until its last sign of life.
held_seconds() {
  local dir began ended
  dir=$(attempt_dir "$1")
  began=$(started "$1" | sed -nE 's/.*"allocated":([0-9]+).*/\1/p; t; s/^\{"time":([0-9]+).*/\1/p')
  [ -n "$began" ] || { echo 0; return; }
  ended=$(date +%s)
  if [ -n "${SETTLED_BY-}" ] || [ "$1" -ne "$ATTEMPT" ]; then
    ended=$(stat -c %Y "$dir"/*.log "$dir/log.times" "$RUN"/events/rank*.jsonl 2>/dev/null | sort -n | tail -n 1)
  fi
  [ "${ended:-0}" -gt "$began" ] && echo $((ended - began)) || echo 0
}

# spent: GPU-seconds of all attempts that have an outcome, those of shards too.
spent() {
  find "$WHOLE/attempts" "$WHOLE/shards" -path '*/attempts/*/outcome.json' -exec \
    sed -nE 's/.*"gpu_seconds":([0-9]+).*/\1/p' {} + 2>/dev/null | { total=0; while read -r one; do total=$((total + one)); done; echo "$total"; }
}

# over_budget: whether no further attempt may begin; says why.
over_budget() {
  local used
  [ "$MAX_GPU_SECONDS" -gt 0 ] || return 1
  used=$(spent)
  [ "$used" -ge "$MAX_GPU_SECONDS" ] || return 1
  echo "$(hours "$used") GPU-hours are used, and restart.max_gpu_hours is $(hours "$MAX_GPU_SECONDS"); xgen resume $RUN_NAME --set restart.max_gpu_hours=N goes on"
}

# hours SECONDS: with two digits behind the point.
hours() { printf '%d.%02d' $(($1 / 3600)) $(($1 % 3600 / 36)); }

# backoff REASON: seconds until the next attempt. The first failure in a row is tried again at once; a stop always is.
backoff() {
  local wait=$BACKOFF_FIRST failure
  case $1 in crashed | lost) ;; *) echo 0; return ;; esac
  [ "$FAILURES" -ge 2 ] || wait=0
  for ((failure = 2; failure < FAILURES && wait < BACKOFF_MOST; failure++)); do wait=$((wait * 2)); done
  echo $((wait < BACKOFF_MOST ? wait : BACKOFF_MOST))
}
