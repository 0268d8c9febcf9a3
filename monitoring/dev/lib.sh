# shellcheck shell=bash
# Shared by up, down and status: options, where things lie, and how to tell that Prometheus lives.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
ROOT=$(cd "$HERE/../.." && pwd)
STATE=$ROOT/.cache/prometheus
RUN_ROOT=$ROOT/runs
PORT=19090
INTERVAL=2s

say() { printf 'dev Prometheus: %s\n' "$*"; }

die() {
  printf 'dev Prometheus: %s\n' "$2" >&2
  exit "$1"
}

parse_options() {
  while [ $# -gt 0 ]; do
    case $1 in
      --state | --run-root | --port | --interval) [ -n "${2-}" ] || die 2 "$1 needs a value" ;;&
      --state) STATE=$2 ;;
      --run-root) RUN_ROOT=$2 ;;
      --port) PORT=$2 ;;
      --interval) INTERVAL=$2 ;;
      *) die 2 "$1 is no option; known: --state DIR --run-root DIR --port N --interval 2s" ;;
    esac
    shift 2
  done
  [[ $PORT =~ ^[0-9]+$ ]] || die 2 "--port: $PORT is no number"
  [[ $INTERVAL =~ ^[0-9]+(ms|s|m)$ ]] || die 2 "--interval: $INTERVAL is no duration; write 2s"
  STATE=$(realpath -m "$STATE")
  RUN_ROOT=$(realpath -m "$RUN_ROOT")
  PIDFILE=$STATE/pid
}

pid() { cat "$PIDFILE" 2>/dev/null; }

# Some process has the number, and is no zombie: where pid 1 does not reap, a dead one stays for ever.
lives() {
  local state
  state=$(sed 's/.*) //' "/proc/$(pid)/stat" 2>/dev/null | cut -c1)
  [ -n "$state" ] && [ "$state" != Z ]
}

# The very process that `up` started: the number may have been given to another since.
alive() {
  lives || return 1
  tr '\0' '\n' <"/proc/$(pid)/cmdline" | grep -qxF -- "--storage.tsdb.path=$STATE/data"
}

# What the living one was started with: the lines of $STATE/options.
started_with() { sed -n "s/^$1=//p" "$STATE/options" 2>/dev/null; }

ready() {
  local port reply=
  port=$(started_with port)
  { exec 3<>"/dev/tcp/127.0.0.1/${port:-$PORT}"; } 2>/dev/null || return 1
  printf 'GET /-/ready HTTP/1.0\r\n\r\n' >&3
  read -r -t 2 reply <&3 || true
  exec 3>&-
  [[ $reply == *' 200 '* ]]
}

# Until it is ready, for at most 30 s; false at once when it has died.
wait_ready() {
  local tenths
  for ((tenths = 300; tenths > 0; tenths--)); do
    ready && return
    lives || return 1 # not `alive`: between fork and exec it has another command line
    sleep 0.1
  done
  return 1
}

# One `up` or `down` at a time for a state folder; Prometheus must not inherit the lock (9>&-).
take_lock() {
  mkdir -p "$(dirname "$STATE")"
  exec 9>"$STATE.lock"
  flock -w 60 9 || die 1 "another up or down has been running for a minute"
}

# stop SECONDS: ask, wait, then insist.
stop() {
  local pid tenths
  pid=$(pid)
  kill "$pid" 2>/dev/null || true
  for ((tenths = $1 * 10; tenths > 0; tenths--)); do
    alive || break
    sleep 0.1
  done
  if alive; then
    say "does not stop: killed"
    kill -9 "$pid"
    for ((tenths = 50; tenths > 0; tenths--)); do
      alive || break
      sleep 0.1
    done
  fi
  rm -f "$PIDFILE"
}
