# shellcheck shell=bash disable=SC2034
# What prolog, epilog and health-check share: the settings, and what is done about a node that is not fit.
# Sourced by them; the checks themselves are checks.sh, the same text that every job of xgen runs on its nodes.

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
# Settings, with their defaults; hooks.conf beside this file, or $XGEN_HOOKS_CONF, says otherwise.
ACT=observe     # observe: say it in the log and no more; drain: take the node out of use
GPUS=           # GPUs that a node has, by name: "g[0-9]*=8 c*=0"; empty: not counted
CHECKS='gpus memory disk shm clock filesystem'
CHECK_LIMIT=20  # seconds
SHARED=         # folder on the shared file system that root may write to; empty: not checked
TMP_WANTED=1073741824
LOG=            # a file; empty: syslog, else the standard error that slurmd keeps
# shellcheck disable=SC1090,SC1091
[ ! -r "${XGEN_HOOKS_CONF:-$HERE/hooks.conf}" ] || . "${XGEN_HOOKS_CONF:-$HERE/hooks.conf}"
checks=$HERE/checks.sh  # as installed; in a checkout it lies where the jobs have it from
[ -r "$checks" ] || checks=$HERE/../../xgen/cluster/host/checks.sh
# shellcheck source=xgen/cluster/host/checks.sh
. "$checks"

tell() {
  if [ -n "$LOG" ]; then
    printf '%s %s %s\n' "$(date '+%FT%T')" "${0##*/}" "$1" >>"$LOG"
  elif ! logger -t "xgen-${0##*/}" -- "$1" 2>/dev/null; then
    printf 'xgen-%s: %s\n' "${0##*/}" "$1" >&2
  fi
}

# expected_gpus: of this node, by the first pattern that its name has.
expected_gpus() {
  local rule
  for rule in $GPUS; do
    # shellcheck disable=SC2053 # it is a pattern
    if [[ $NODE == ${rule%%=*} ]]; then
      echo "${rule#*=}"
      return
    fi
  done
  echo 0
}

# examine: the checks. Tells what they found; FAULTS is what is wrong with the node, '' for nothing.
examine() {
  local check level text
  FAULTS=''
  name_node
  # shellcheck disable=SC2034 # check_gpus reads it
  NUM_GPUS=$(set -f && expected_gpus)
  while read -r _ _ check level text; do
    case $level in
      bad)
        FAULTS+="${FAULTS:+; }$check: $text"
        tell "node $NODE is unhealthy: $check: $text"
        ;;
      note) tell "node $NODE: $check: $text" ;;
    esac
  done < <(run_checks)
}
