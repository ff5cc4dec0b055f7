#!/usr/bin/env bash
# Books TPU VMs through queued resources, runs commands on them, and gives them back.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: tpu.sh create NAME --type=TYPE [--version=RUNTIME] [--spot] [--zone=ZONE] [--project=ID] [--dry-run]
       tpu.sh wait   NAME [--poll=SECONDS] [--timeout=SECONDS] [--zone=ZONE] [--project=ID] [--dry-run]
       tpu.sh copy   NAME [--zone=ZONE] [--project=ID] [--dry-run] -- FILE
       tpu.sh run    NAME [--zone=ZONE] [--project=ID] [--dry-run] -- COMMAND...
       tpu.sh delete NAME [--zone=ZONE] [--project=ID] [--dry-run]

create  asks for a slice (TYPE: v5litepod-8, v6e-16, v5p-32, v4-8, ...) and returns at once
wait    returns when it is there; fails when it never will be
copy    copies a file into the home folder of every worker
run     runs a command on every worker; one argument is a line of shell, several are one command
delete  gives the slice back, whatever state it is in

ZONE and PROJECT default to those of `gcloud config`. --dry-run prints the gcloud commands instead.
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
# https://docs.cloud.google.com/tpu/docs/runtimes
default_version() {
  case $1 in
    v4-*) echo tpu-ubuntu2204-base ;;
    v5litepod-*) echo v2-alpha-tpuv5-lite ;;
    v5p-*) echo v2-alpha-tpuv5 ;;
    v6e-*) echo v2-alpha-tpuv6e ;;
    *) die "no runtime is known for --type=$1; add --version=RUNTIME" ;;
  esac
}

create() {
  [[ -n $type ]] || die "create needs --type, e.g. --type=v5litepod-8"
  local image=${version:-}
  [[ -n $image ]] || image=$(default_version "$type")
  call compute tpus queued-resources create "$name" --node-id="$name" \
    --accelerator-type="$type" --runtime-version="$image" ${spot:+"$spot"} "${place[@]}"
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

run_everywhere() {
  ((${#rest[@]})) || die "run needs a command after --"
  local line=${rest[0]}
  ((${#rest[@]} == 1)) || line=$(printf '%q ' "${rest[@]}")
  call compute tpus tpu-vm ssh "$name" --worker=all --command="$line" "${place[@]}"
}

copy() {
  ((${#rest[@]} == 1)) || die "copy needs one file after --"
  call compute tpus tpu-vm scp "${rest[0]}" "$name:" --worker=all "${place[@]}"
}

delete() {
  call compute tpus queued-resources delete "$name" --force --quiet "${place[@]}"
}

(($#)) || { usage >&2; exit 2; }
case $1 in
  -h | --help | help) usage; exit 0 ;;
  create | wait | copy | run | delete) verb=$1 ;;
  *) usage >&2; exit 2 ;;
esac
shift
[[ $# -gt 0 && $1 != -* ]] || die "$verb needs the name of the slice"
name=$1
shift

dry_run='' type='' version='' spot='' poll=30 timeout=86400
place=() rest=()
while (($#)); do
  case $1 in
    --type=?*) type=${1#*=} ;;
    --version=?*) version=${1#*=} ;;
    --zone=?* | --project=?*) place+=("$1") ;;
    --poll=[0-9]*) poll=${1#*=} ;;
    --timeout=[0-9]*) timeout=${1#*=} ;;
    --spot) spot=--spot ;;
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
  copy) copy ;;
  run) run_everywhere ;;
  delete) delete ;;
esac
