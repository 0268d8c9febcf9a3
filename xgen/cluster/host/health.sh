# Nodes that are not fit: found before the tasks start, blamed for what died by them, kept from jobs for a while. What a
# team knows of its nodes lies in .nodes beside its runs (docs/nodes.md): a file for each fact, renamed into place, so that
# there is no lock to be left behind, and two writers write the same.

NODES="${WHOLE%/*}/.nodes"

# nodes_of ATTEMPT: SLURM's list of them, as the attempt wrote it down when it started.
nodes_of() { started "$1" | sed -nE 's/.*"nodes":"([^"]*)".*/\1/p'; }

# names LIST: a line each.
names() { timeout -s KILL 60 scontrol show hostnames "$1"; }

partition_nodes() { timeout -s KILL 20 sinfo -h -N -p "$PARTITION" -o %N 2>/dev/null | sort -u; }

# check_nodes <CHECKS: the checks of checks.sh on every node, before anything else. A node that fails them goes on the
# exclude list, and the job goes back to the queue for another; that is no failure of the run. Where it cannot be excluded,
# or nodes are only observed, the job goes on.
check_nodes() {
  local text answer began ended node check level moved='' wait=$((CHECK_LIMIT + 30))
  local -A bad=() with=() heard=()
  [ -z "$TERMINATED" ] || return 0
  text="SHARED=$(printf %q "$ATTEMPT_DIR")"$'\n'"$(cat)"
  began=$(date +%s)
  if [ "$SLURM_NNODES" -eq 1 ]; then # this one
    answer=$(timeout -k 5 "$wait" bash -c "$text" </dev/null 2>&1 9>&-)
  else
    printf '%s\n' "$text" >"$ATTEMPT_DIR/checks.sh"
    answer=$(on_every_node "$wait" "$ATTEMPT_DIR/checks.sh" 2>&1)
  fi
  ended=$(date +%s)
  while read -r node check level text; do
    heard[$node]=1
    case $level in
      time)
        if [ "$text" -lt $((began - 2)) ] || [ "$text" -gt $((ended + 2)) ]; then
          echo "xgen: node $node: clock: $((text - ended)) s from that of ${HOSTNAME%%.*}"
        fi
        ;;
      note) echo "xgen: node $node: $check: $text" ;;
      bad) with[$check]+="$node " bad["$node $check"]=$text ;;
    esac
  done < <(sed -nE 's/^( *[0-9]+: ?)?xgen-health //p' <<<"$answer")
  while read -r node; do
    [ -n "${heard[$node]-}" ] || with[answer]+="$node " bad["$node answer"]="none within $wait s"
  done < <(names "$SLURM_JOB_NODELIST")
  [ -z "${with[answer]-}" ] || grep -v 'xgen-health ' <<<"$answer" # what srun says of it
  for check in "${!with[@]}"; do
    if [ "$SLURM_NNODES" -gt 1 ] && [ $(($(wc -w <<<"${with[$check]}") * 2)) -gt "$SLURM_NNODES" ]; then
      node=${with[$check]%% *}
      echo "xgen: most nodes fail the check $check, which is no fault of theirs; $node: ${bad["$node $check"]}" >&2
      continue
    fi
    for node in ${with[$check]}; do
      text="$check: ${bad["$node $check"]}"
      event unhealthy ",\"nodes\":\"$node\",\"reason\":\"$(json_text "$text")\""
      echo "xgen: node $node is unhealthy: $text" >&2
      case ", $moved," in *", $node,"*) continue ;; esac
      ! exclude_node "$node" "$text" || moved+="${moved:+, }$node"
    done
  done
  [ -n "$moved" ] || return 0
  write_outcome "$ATTEMPT" stopped "unhealthy: $moved, before the first step"
  requeue unhealthy
  exit 75
}

# blame_nodes: the nodes that SLURM lost under the attempt, whatever the ranks said then. Else after a crash the node that
# it began on, if it died of what nodes are to blame for (NODE_DEATHS, of deaths.py). A crash of the program itself blames
# nobody.
blame_nodes() {
  local rank='' node='' text line kind pattern
  line=$(sed -nE 's/.*srun: error: Node failure on ([^ ]+).*/\1/p' "$ATTEMPT_DIR/err.log" 2>/dev/null | head -n 1)
  if [ -n "$line" ]; then
    for node in $(names "${line%.}"); do blame "$node" lost "$ATTEMPT" "SLURM lost it"; done
    return 0
  fi
  [ "$OUTCOME" = crashed ] || return 0
  text=$REASON
  if [[ $REASON =~ ^rank\ ([0-9]+):\  ]]; then
    rank=${BASH_REMATCH[1]} text=${REASON#*: }
    node=$(names "$(nodes_of "$ATTEMPT")" | sed -n "$((rank / (NUM_TASKS / NUM_NODES) + 1))p")
  else
    line=$(grep -sE 'srun: error: [^ ]+: tasks? [0-9,-]+: ' "$ATTEMPT_DIR/err.log" | grep -v Terminated | head -n 1)
    if [[ $line =~ error:\ ([^ ]+):\ tasks?\ ([0-9]+) ]]; then
      node=${BASH_REMATCH[1]} rank=${BASH_REMATCH[2]}
    fi
    text=$line
  fi
  # What a check of all ranks together found names the node itself.
  [[ ! $text =~ unhealthy:\ node\ ([A-Za-z0-9._-]+) ]] || node=${BASH_REMATCH[1]}
  [ -n "$node" ] || return 0
  while IFS='=' read -r kind pattern; do
    line=$({ echo "$text"; [ -z "$rank" ] || grep -sE "^ *$rank: " "$ATTEMPT_DIR/err.log"; } | grep -m 1 -iE -- "$pattern") || continue
    blame "$node" "$kind" "$ATTEMPT" "${line#*: }"
    return 0
  done <<<"$NODE_DEATHS"
}

# blame_lost_nodes: of the nodes of an attempt that was lost, those that SLURM has lost too, or that have booted since.
blame_lost_nodes() {
  local previous=$((ATTEMPT - 1)) nodes since record node boot
  [ "$previous" -ge 1 ] && [ "$(field "$(attempt_dir "$previous")/outcome.json" status)" = lost ] || return 0
  nodes=$(nodes_of "$previous")
  since=$(started "$previous" | sed -nE 's/^\{"time":([0-9]+).*/\1/p')
  [ -n "$nodes" ] || return 0
  while read -r record; do
    node=$(sed -nE 's/^NodeName=([^ ]+) .*/\1/p' <<<"$record")
    boot=$(date -d "$(sed -nE 's/.* BootTime=([^ ]+) .*/\1/p' <<<"$record")" +%s 2>/dev/null)
    if [[ $record =~ \ State=[A-Z+]*(\*|NOT_RESPONDING) || $record == *"Reason=Not responding"* ]]; then
      blame "$node" lost "$previous" "SLURM lost it"
    elif [ "${boot:-0}" -gt "$since" ]; then
      blame "$node" lost "$previous" "it booted again"
    fi
  done < <(timeout -s KILL 20 scontrol -o show node "$nodes" 2>/dev/null)
}

# blame NODE KIND ATTEMPT TEXT: a death for which the node may be at fault; those that are enough exclude it.
blame() {
  local name=$RUN_NAME dir="$NODES/blame/$1" num
  ! is_shard || name+=".${STAGE_NAME:-array}.$SHARD"
  mkdir -p "$dir" 2>/dev/null
  write_whole "$dir/$name.$3.json" "$(printf '{"node":"%s","kind":"%s","run":"%s","attempt":%d,"job_id":"%s","time":%s,"reason":"%s"}' \
    "$1" "$2" "$RUN_NAME" "$3" "$JOB" "$(now)" "$(json_text "${4:0:200}")")"
  event unhealthy ",\"nodes\":\"$1\",\"reason\":\"$2: $(json_text "${4:0:200}")\""
  num=$(count_deaths "$1" "$2")
  echo "xgen: attempt $3 died by node $1 ($2): $num of $DEATHS deaths that exclude it" >&2
  [ "$num" -lt "$DEATHS" ] || exclude_node "$1" "$num deaths, the last: $2: ${4:0:200}"
}

# count_deaths NODE KIND: those within the window, since the last decision about the node. Evidence of broken hardware
# counts each time. What may be the program's own fault counts once a run, and not if the run died like that elsewhere
# too: a program that crashes everywhere must not take the cluster with it.
count_deaths() {
  local file time kind run since count=0 now seen=' '
  now=$(date +%s)
  since=$(micros "$(field "$NODES/$1.json" since)")
  for file in "$NODES/blame/$1"/*.json; do
    time=$(field "$file" time) kind=$(field "$file" kind) run=$(field "$file" run)
    time=$(micros "$time")
    if [ "$time" -le $(((now - WINDOW) * 1000000)) ] || [ "$time" -le "$since" ]; then continue; fi
    case " $SURE_DEATHS " in
      *" $kind "*) count=$((count + 1)) ;;
      *)
        case $seen in *" $run "*) continue ;; esac
        seen+="$run "
        [ "$(grep -ls "\"kind\":\"$kind\",\"run\":\"$run\"" "$NODES"/blame/*/"$run".* | grep -cv "/blame/$1/")" -gt 0 ] || count=$((count + 1))
        ;;
    esac
  done
  echo "$count"
}

# micros SECONDS: a time, 0 for none.
micros() {
  local part=${1#*.}
  [ "$part" != "$1" ] || part=''
  part+=000000
  echo "$((10#0${1%%.*}))${part:0:6}"
}

# exclude_node NODE REASON: put it on the list. Fails, and says why, where that is not wanted or would take too much.
exclude_node() {
  local known=$NODES/$1.json until said='' all total active
  all=$(partition_nodes)
  total=$(grep -c . <<<"$all")
  active=$(excluded_nodes | grep -vxF -- "$1" | grep -cxFf - <(echo "$all"))
  active=${active:-0} # grep says nothing where the list is empty
  if [ "$ACT" != exclude ]; then
    said="nodes are only observed"
  elif ! grep -qxF -- "$1" <<<"$all"; then
    said="SLURM knows no such node in partition $PARTITION"
  elif is_excluded "$1"; then
    # By another job: this one should leave too, where its next attempt is kept off. By this run, which was given it all
    # the same: not again.
    [ "$(field "$known" run)" = "$RUN_NAME" ] || ! kept_off "$all" | grep -qxF -- "$1" || return 0
    said="it is excluded already"
  elif [ "$active" -ge "$(most_excluded "$total")" ]; then
    said="$active of $total nodes of partition $PARTITION are excluded, no more may be"
  elif [ $((total - active - 1)) -lt "$NUM_NODES" ]; then
    said="the job needs $NUM_NODES of the $total nodes of partition $PARTITION"
  fi
  if [ -n "$said" ]; then
    echo "xgen: node $1 is not excluded: $said" >&2
    return 1
  fi
  until=$(($(date +%s) + EXCLUDE_FOR))
  mkdir -p "$NODES" 2>/dev/null
  write_whole "$known" "$(printf '{"node":"%s","since":%s,"until":%d,"by":"%s","run":"%s","reason":"%s"}' \
    "$1" "$(now)" "$until" "${USER:-$UID}" "$RUN_NAME" "$(json_text "$2")")" || EXCLUDED_HERE+="$1 "
  event node_excluded ",\"nodes\":\"$1\",\"reason\":\"until $(date -d "@$until" '+%d %b %H:%M'): $(json_text "$2")\""
  echo "xgen: node $1 is excluded until $(date -d "@$until" '+%d %b %H:%M'): $2" >&2
}

# most_excluded TOTAL: of so many nodes.
most_excluded() {
  local most=$(($1 * MOST_PERMILLE / 1000))
  echo $((most > 1 ? most : 1))
}

is_excluded() {
  local until
  until=$(field "$NODES/$1.json" until)
  [ "${until%%.*}" -gt "$(date +%s)" ] 2>/dev/null
}

# excluded_nodes: those on the list now, a line each, the newest first; and what a full disk kept off it.
excluded_nodes() {
  local file
  for file in $EXCLUDED_HERE; do echo "$file"; done
  while read -r file; do
    file=${file##*/} file=${file%.json}
    ! is_excluded "$file" || echo "$file"
  done < <(ls -t "$NODES"/*.json 2>/dev/null)
}

# kept_off NODES: of these, all of the partition, those that the next attempt is not given: as many as may be, and no more
# than leave room for the job. A submission chooses alike (`choose` in nodes.py).
kept_off() {
  local total most
  total=$(grep -c . <<<"$1")
  most=$(most_excluded "$total")
  [ $((total - most)) -ge "$NUM_NODES" ] || most=$((total - NUM_NODES))
  [ "$most" -le 0 ] || excluded_nodes | grep -xFf <(echo "$1") | head -n "$most"
}

# keep_off JOB: a job that waits is not given the nodes on the list, as far as its partition may lose them. SLURM takes this
# of jobs that wait only.
keep_off() {
  [ -n "$EXCLUDED_HERE" ] || compgen -G "$NODES/*.json" >/dev/null || return 0
  timeout -s KILL 60 scontrol update JobId="$1" ExcNodeList="$(kept_off "$(partition_nodes)" | paste -sd , -)" 2>&1 |
    sed "s/^/xgen: job $1 may be given nodes that are excluded: /" >&2
}
