# When the logs grew: what puts the lines of both into one order, and finds those of the last ten minutes.

# The batch script lives: one that was killed is a zombie where nobody reaps it, and then gone.
script_lives() {
  local state
  read -r _ _ state _ 2>/dev/null <"/proc/$$/stat" && [ "$state" != Z ]
}

# note_sizes: `SECONDS OUT ERR` in log.times, every 5 s in which a log has grown. In the background, until it is killed, or
# the batch script is.
note_sizes() {
  local sizes before=
  trap '' TERM USR2 # the last lines of an attempt that is stopped are those that people look for
  while script_lives; do
    sizes=$(stat -c %s "$ATTEMPT_DIR/out.log" "$ATTEMPT_DIR/err.log" 2>/dev/null | tr '\n' ' ')
    [ "$sizes" = "$before" ] || printf '%(%s)T %s\n' -1 "${sizes% }" 2>/dev/null # a full disk costs the line
    before=$sizes
    end_hung
    sleep 5
  done >>"$ATTEMPT_DIR/log.times"
}
