# The tasks: what they get, and how they are started and waited for.

# record_environment FILE: names and values of the environment of the tasks, for reproduction; what looks like a secret
# is left out.
record_environment() {
  local name
  for name in $(compgen -e | sort); do
    case $name in
      *TOKEN* | *SECRET* | *PASSW* | *API_KEY* | *APIKEY* | *CREDENTIAL* | *PRIVATE_KEY* | *JWT*) printf '%s=***\n' "$name" ;;
      *) printf '%s=%q\n' "$name" "${!name}" ;;
    esac
  done >"$1"
}

# The first node of the job leads, at the address by which SLURM itself reaches it: names may mean nothing in the
# container, and a host's own idea of its address is often 127.0.1.1. The port is new in each attempt: the old one may
# linger, or belong to a rank that does not die. A controller that restarts is asked again for some minutes: to give up
# would be a failure of the run.
choose_rendezvous() {
  local first began=$SECONDS
  first=$(timeout 60 scontrol show hostnames "$SLURM_JOB_NODELIST" | head -n 1)
  while :; do
    MASTER_ADDR=$(timeout 60 scontrol show node "$first" | sed -nE 's/.*NodeAddr=([^ ]+).*/\1/p' | head -n 1)
    [ -z "$MASTER_ADDR" ] || break
    if [ $((SECONDS - began)) -ge 300 ]; then
      NOT_READY="scontrol has not said for $((SECONDS - began)) s where the job's first node, $first, is"
      decide
    fi
    sleep "$REQUEUE_PAUSE"
  done
  MASTER_PORT=$((20000 + (SLURM_JOB_ID * 61 + ATTEMPT * 7) % 12000))
  while (exec 3<>"/dev/tcp/$MASTER_ADDR/$MASTER_PORT") 2>/dev/null; do MASTER_PORT=$((MASTER_PORT + 1)); done
  export MASTER_ADDR MASTER_PORT
}

# Run the tasks (`run_tasks` is rendered for each job) and wait. In a subshell, so that no variable of the job reaches
# the decision, and in the background, because bash runs a trap only between commands: the TERM is on record before the
# KILL that may follow. It is heard here only: a trap that runs while $(…) is read ends the function around it (seen in
# bash 5.2). Of one that came before SLURM is asked.
launch() {
  local noting tasks told=
  case $(job_record) in *JobState=COMPLETING* | *JobState=CANCELLED* | *JobState=PREEMPTED*) TERMINATED=1 ;; esac
  [ -n "$TERMINATED" ] || trap 'TERMINATED=1' TERM
  if [ -n "$TERMINATED" ]; then # before there was anything to stop
    event signal ',"signal":"SIGTERM"'
    decide
  fi
  run_tasks </dev/null 9>&- &
  tasks=$!
  note_sizes </dev/null 9>&- &
  noting=$!
  while :; do
    wait "$tasks"
    TASKS_EXIT=$?
    if [ -n "$TERMINATED" ] && [ -z "$told" ]; then
      trap '' TERM
      told=1
      event signal ',"signal":"SIGTERM"'
    fi
    kill -0 "$tasks" 2>/dev/null || break
  done
  trap '' TERM
  wait "$tasks"
  TASKS_EXIT=$?
  kill -KILL "$noting" && wait "$noting" 2>/dev/null
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
