# Jobs of other runs that wait for this one (see cluster/behind.py).

# repoint JOBS: whoever waits for this run waits for JOBS from now on, `12` or `12:15`: steps of a pipeline. What else
# they wait for stays.
repoint() (
  failed=0
  exec 7>>"${WHOLE%/*}/.repoint.lock"
  for file in "$WHOLE"/waiting/[0-9]*; do
    [ -e "$file" ] || continue
    waiter=${file##*/}
    old=$(cat "$file")
    flock -w 60 7
    record=$(timeout -s KILL 60 scontrol show job -o "$waiter" 2>&1)
    case $record in
      *JobState=PENDING*)
        terms="${old%%:*}:$1"
        for term in $(sed -nE 's/.* Dependency=([^ ]*).*/\1/p' <<<"$record" | sed -E 's/\([^)]*\)|_\*//g' | tr , ' '); do
          case ":${old#*:}:" in *":${term#*:}:"*) ;; *) [ "$term" = '' ] || terms="$term,$terms" ;; esac
        done
        if timeout -s KILL 60 scontrol update JobId="$waiter" Dependency="$terms"; then
          write_whole "$file" "${old%%:*}:$1"
        else
          echo "xgen: job $waiter of another run does not wait for job $1: write xgen resume of its pipeline" >&2
          failed=1
        fi
        ;;
      *JobState=* | *nvalid\ job\ id*) rm -f "$file" ;; # it has started, or is gone
      *) failed=1 ;;
    esac
    flock -u 7
  done
  exit "$failed"
)
