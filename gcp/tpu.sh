#!/usr/bin/env bash
# Books TPU VMs through queued resources, runs commands on them, and gives them back.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: tpu.sh create  NAME --type=TYPE [--slices=N] [--spot | --reserved] [--version=RUNTIME] [--account=EMAIL] [PLACE]
       tpu.sh wait    NAME [--poll=SECONDS] [--timeout=SECONDS] [PLACE]
       tpu.sh state   NAME [PLACE]
       tpu.sh copy    NAME [--slices=N] [PLACE] -- FILE
       tpu.sh run     NAME [--slices=N] [--tries=N] [PLACE] -- COMMAND...
       tpu.sh delete  NAME [PLACE]
       tpu.sh babysit NAME --type=TYPE --folder=gs://BUCKET/FOLDER [--slices=N] [--spot | --reserved] [PLACE] -- COMMAND...
       tpu.sh types

create   asks for slices (TYPE: v5litepod-8, v6e-16, v5p-32, v4-8, ...) and returns at once
wait     returns when they are there; fails when they never will be
state    prints the state of the request
copy     copies a file into the home folder of every worker
run      runs a command on every worker; one argument is a line of shell, several are one command. A connection that
         drops is made again, --tries times: give commands that may run twice
delete   gives the slices back, whatever state they are in
babysit  sees a command through to its end: books slices, books them anew when they are taken away, gives them back
types    prints the table of slices

PLACE: [--zone=ZONE] [--project=ID]; the default is that of `gcloud config`. --dry-run prints the gcloud commands instead.
EOF
}

die() {
  printf 'tpu.sh: %s\n' "$1" >&2
  exit 2
}

call() {
  if [[ -n $dry_run ]]; then
    printf '%q ' gcloud "$@"
    printf '\n'
  else
    gcloud "$@"
  fi
}

# The runtime image that goes with an accelerator type.
default_version() {
  local image
  image=$(awk -F '\t' -v type="$1" '$1 == type { print $6 }' "$table")
  [[ -n $image && $image != - ]] || die "no runtime is known for --type=$1 (see tpu.sh types); add --version=RUNTIME"
  printf '%s\n' "$image"
}

create() {
  [[ -n $type ]] || die "create needs --type, e.g. --type=v5litepod-8"
  local image=${version:-}
  [[ -n $image ]] || image=$(default_version "$type")
  local nodes=(--node-id="$name")
  ((slices == 1)) || nodes=(--node-prefix="$name" --node-count="$slices")
  call compute tpus queued-resources create "$name" "${nodes[@]}" --accelerator-type="$type" \
    --runtime-version="$image" ${tier:+"$tier"} ${account:+"--service-account=$account"} "${place[@]}"
}

wait_until_active() {
  local describe=(compute tpus queued-resources describe "$name" '--format=value(state.state)' "${place[@]}")
  if [[ -n $dry_run ]]; then
    call "${describe[@]}"
    return
  fi
  local state before='' waited=0
  while true; do
    state=$(gcloud "${describe[@]}")
    [[ $state == "$before" ]] || printf '%s: %s\n' "$name" "$state"
    before=$state
    case $state in
      ACTIVE) return ;;
      # A suspended request never comes back by itself.
      FAILED | SUSPENDED | SUSPENDING | DELETING) die "$name is $state: run 'tpu.sh delete $name', then create it again" ;;
    esac
    ((waited < timeout)) || die "$name is still $state after $timeout s; it stays in the queue, wait again"
    sleep "$poll"
    waited=$((waited + poll))
  done
}

state() {
  call compute tpus queued-resources describe "$name" '--format=value(state.state)' "${place[@]}"
}

# The nodes of the request: NAME, or NAME-0, NAME-1, ... where there are several slices.
nodes() {
  if ((slices == 1)); then
    printf '%s\n' "$name"
  else
    seq -f "$name-%.0f" 0 $((slices - 1))
  fi
}

run_everywhere() {
  ((${#rest[@]})) || die "run needs a command after --"
  local line=${rest[0]} node try status
  ((${#rest[@]} == 1)) || line=$(printf '%q ' "${rest[@]}")
  while read -r node; do
    for ((try = 1; ; try++)); do
      status=0
      call compute tpus tpu-vm ssh "$node" --worker=all --command="$line" "${place[@]}" </dev/null || status=$?
      # 255 is ssh's own: the connection dropped. Any other status is the command's.
      if ((status != 255)); then break; fi
      ((try < tries)) || die "$node: the connection dropped $try times"
      printf '%s: the connection dropped, tried again\n' "$node" >&2
      sleep "$poll"
    done
    ((status == 0)) || exit "$status"
  done < <(nodes)
}

copy() {
  ((${#rest[@]} == 1)) || die "copy needs one file after --"
  local node
  while read -r node; do
    call compute tpus tpu-vm scp "${rest[0]}" "$node:" --worker=all "${place[@]}" </dev/null
  done < <(nodes)
}

babysit() {
  [[ -n $type && -n $folder ]] || die "babysit needs --type and --folder, e.g. --folder=gs://BUCKET/my_study"
  ((${#rest[@]})) || die "babysit needs a command after --"
  exec "${PYTHON:-python3}" "$here/babysit.py" "$name" --type="$type" --folder="$folder" --slices="$slices" \
    --tier="${tier#--}" --account="$account" "${place[@]}" ${dry_run:+--dry-run} -- "${rest[@]}"
}

delete() {
  call compute tpus queued-resources delete "$name" --force --quiet "${place[@]}"
}

here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
table=$here/../alignpre_jax/foundation/accelerators.tsv

(($#)) || { usage >&2; exit 2; }
case $1 in
  -h | --help | help) usage; exit 0 ;;
  types) column -t "$table"; exit 0 ;;
  create | wait | state | copy | run | delete | babysit) verb=$1 ;;
  *) usage >&2; exit 2 ;;
esac
shift
[[ $# -gt 0 && $1 != -* ]] || die "$verb needs the name of the slice"
name=$1
shift

dry_run='' type='' version='' tier='' account='' folder='' slices=1 tries=5 poll=30 timeout=86400
place=() rest=()
while (($#)); do
  case $1 in
    --type=?*) type=${1#*=} ;;
    --version=?*) version=${1#*=} ;;
    --zone=?* | --project=?*) place+=("$1") ;;
    --poll=[0-9]*) poll=${1#*=} ;;
    --timeout=[0-9]*) timeout=${1#*=} ;;
    --slices=[1-9]*) slices=${1#*=} ;;
    --tries=[1-9]*) tries=${1#*=} ;;
    --account=*) account=${1#*=} ;;
    --folder=gs://?*) folder=${1#*=} ;;
    --spot | --reserved) tier=$1 ;;
    --dry-run) dry_run=yes ;;
    --)
      shift
      rest=("$@")
      break
      ;;
    *) die "$1 is not an option of this script; options are written --name=value, a command comes after --" ;;
  esac
  shift
done

case $verb in
  create) create ;;
  wait) wait_until_active ;;
  state) state ;;
  babysit) babysit ;;
  copy) copy ;;
  run) run_everywhere ;;
  delete) delete ;;
esac
