# shellcheck shell=bash disable=SC2034
# Shared by up, down and status, each of which hands over its arguments: where things lie, and how to tell that a daemon
# lives.

CLUSTER=xgen-dev FIRST_PORT=6817 FIRST_NODE_PORT=17001
NODES=(n1 n2 n3 n4)
CONTROLLER=ctl # the name of the machine on which slurmctld and slurmdbd believe to be
SECOND=
if [ "${1-}" = --second ]; then # beside the first, and apart from it in everything
  SECOND=1
  CLUSTER=xgen-dev-second FIRST_PORT=6827 FIRST_NODE_PORT=17011
  NODES=(m1 m2 m3 m4)
  CONTROLLER=ctl2
fi
DBD_PORT=$((FIRST_PORT + 2))
STATE=/var/lib/${CLUSTER/dev/dev-slurm}
# The configuration files. Those of the first are linked into /etc/slurm so that plain sbatch and squeue find them.
CONFIGS=(slurm.conf gres.conf cgroup.conf slurmdbd.conf)
unset SLURM_CONF # of whoever calls: it may lead to the other one
[ -z "$SECOND" ] || export SLURM_CONF=$STATE/etc/slurm.conf
DAEMONS=(munged mariadbd slurmdbd slurmctld "${NODES[@]/#/slurmd-}")
DOCKERD=/usr/sbin/dockerd # not one of them: it runs where `up --docker` was asked for
HOSTS_MARK="# ${STATE##*/}"
export PATH="$PATH:/usr/sbin:/sbin"

say() { printf 'dev SLURM: %s\n' "$*"; }

die() {
  printf 'dev SLURM: %s\n' "$2" >&2
  exit "$1"
}

needs_root_and_slurm() {
  [ "$(id -u)" -eq 0 ] || die 3 "needs root (it starts daemons and makes device nodes); without it: --cluster local"
  local missing=() command
  for command in munged mariadbd slurmdbd slurmctld slurmd sbatch; do
    command -v "$command" >/dev/null || missing+=("$command")
  done
  [ "${#missing[@]}" -eq 0 ] || die 3 "${missing[*]} not installed; write: make setup"
}

# One `up` or `down` at a time; the daemons must not inherit the lock (9>&-). `down` removes the file: whoever waited
# for the old one takes the new one.
LOCK=/run/lock/${STATE##*/}.lock
take_lock() {
  while true; do
    exec 9>"$LOCK"
    flock -w 60 9 || die 1 "another up or down has been running for a minute"
    [ ! /proc/self/fd/9 -ef "$LOCK" ] || return 0
  done
}

pid_of() { cat "$STATE/run/$1.pid" 2>/dev/null || true; }

# Where pid 1 does not reap, a zombie stays for ever: it is dead.
lives() {
  local state
  state=$(sed 's/.*) //' "/proc/$1/stat" 2>/dev/null | cut -c1)
  [ -n "$state" ] && [ "$state" != Z ]
}

# Alive, and the program that it should be.
alive() {
  local pid
  pid=$(pid_of "$1")
  [ -n "$pid" ] && lives "$pid" && grep -q "^${1%%-*}" "/proc/$pid/comm"
}

# wait_for SECONDS WHAT COMMAND...
wait_for() {
  local deadline=$((SECONDS + $1)) what=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    [ "$SECONDS" -lt "$deadline" ] || die 1 "gave up waiting for $what; logs are in $STATE/log"
    sleep 0.1
  done
}

# dockerd's own child, which outlives a dockerd that was killed.
end_containerd() {
  local pid
  pid=$(cat "$STATE/docker-run/containerd/containerd.pid" 2>/dev/null) || return 0
  ! grep -qs containerd "/proc/$pid/comm" || kill -9 "$pid"
  rm -f "$STATE/docker-run/containerd/containerd.pid"
}

# One at a time with the other cluster, whose line is there too.
take_hosts() {
  exec 8>/run/lock/xgen-dev-slurm-hosts.lock
  flock -w 60 8 || die 1 "another up or down has been at /etc/hosts for a minute"
}

# The line of ours in /etc/hosts. Written in place, for the file may be a mount.
forget_names() {
  local others
  grep -q "$HOSTS_MARK\$" /etc/hosts || return 0
  others=$(grep -v "$HOSTS_MARK\$" /etc/hosts || true)
  printf '%s\n' "$others" >/etc/hosts
}

# stop NAME...: ask all at once, wait for each, then insist. By number: a daemon removes its pid file before it ends.
stop() {
  local name
  local -A pids=()
  for name in "$@"; do
    ! alive "$name" || pids[$name]=$(pid_of "$name")
  done
  [ "${#pids[@]}" -eq 0 ] || kill "${pids[@]}" 2>/dev/null || true
  for name in "${!pids[@]}"; do
    for _ in $(seq 150); do
      lives "${pids[$name]}" || break
      sleep 0.1
    done
    if lives "${pids[$name]}"; then
      say "$name does not stop: killed"
      kill -9 "${pids[$name]}"
    fi
  done
  for name in "$@"; do
    rm -f "$STATE/run/$name.pid"
  done
}

count_usable_nodes() { timeout 10 sinfo -h -N -p gpu -o %T 2>/dev/null | grep -cE '^(idle|mixed|allocated|completing)$'; }
