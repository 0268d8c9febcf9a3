# Ranks that hang, and do not die of it.

HANG_GRACE=120 hung_since=

# end_hung: the watchdogs kill the ranks of an attempt that hangs (xgen/hang). One that waits in the kernel, for a disk or
# a driver that does not answer, outlives that, and srun waits for it: without srun the host decides, and SLURM takes the
# node out of use. Called every few seconds; `tasks` is the process of srun.
end_hung() {
  [ -e "$ATTEMPT_DIR/hang/decided" ] || return 0
  hung_since=${hung_since:-$SECONDS}
  [ $((SECONDS - hung_since)) -ge "$HANG_GRACE" ] || return 0
  echo "xgen: the hung ranks do not die; srun is killed" >&2
  kill -KILL "$tasks"
}
