#!/usr/bin/env bash
# Startup script of every host of a TPU VM slice: installs the package, mounts the bucket, runs one job to its end.
#
# The launcher puts assignments of these variables before it:
#   PLACE    gs:// folder of the job; gets exit, heartbeat and log-SLICE-HOST
#   PACKAGE  gs:// URL of the source archive
#   BUCKET   name of the bucket that is mounted as $MOUNT
#   MOUNT    folder
#   CRASHES  how often the job may die of an unknown cause before its status is final
#   COMMAND  array: the job
# It may run any number of times, on every boot: a job that is finished is left alone, one that runs is not started twice.
set -euo pipefail

: "${PLACE:?}" "${PACKAGE:?}" "${BUCKET:?}" "${MOUNT:?}" "${CRASHES:=5}"
[[ ${#COMMAND[@]} -gt 0 ]]
home=${ALIGNPRE_HOME:-/opt/alignpre}
metadata=${ALIGNPRE_METADATA:-http://metadata.google.internal/computeMetadata/v1/instance/attributes}

attribute() { curl --silent --fail --header 'Metadata-Flavor: Google' "$metadata/$1" || true; }

install() {
  [[ ! -e $home/installed || $(<"$home/installed") != "$PACKAGE" ]] || return 0
  export DEBIAN_FRONTEND=noninteractive
  if ! command -v gcsfuse >/dev/null; then
    local release
    release=$(lsb_release -c -s)
    curl --silent --show-error --fail https://packages.cloud.google.com/apt/doc/apt-key.gpg |
      gpg --dearmor --yes -o /usr/share/keyrings/cloud.google.gpg
    echo "deb [signed-by=/usr/share/keyrings/cloud.google.gpg] https://packages.cloud.google.com/apt gcsfuse-$release main" \
      >/etc/apt/sources.list.d/gcsfuse.list
    apt-get update -q && apt-get install -q -y gcsfuse
  fi
  if ! command -v python3.11 >/dev/null; then
    apt-get update -q && apt-get install -q -y software-properties-common
    add-apt-repository -y ppa:deadsnakes/ppa && apt-get install -q -y python3.11 python3.11-venv
  fi
  rm -rf "$home/source" && mkdir -p "$home/source"
  gcloud storage cp "$PACKAGE" "$home/source.tar.gz"
  tar -xzf "$home/source.tar.gz" -C "$home/source" --strip-components=1
  python3.11 -m venv "$home/venv"
  "$home/venv/bin/pip" install --quiet -c "$home/source/requirements/lock-3.11.txt" -e "$home/source[tpu]"
  printf '%s' "$PACKAGE" >"$home/installed"
}

mount_bucket() {
  mkdir -p "$MOUNT"
  mountpoint -q "$MOUNT" ||
    gcsfuse --implicit-dirs --rename-dir-limit=200000 --stat-cache-max-size-mb=128 --metadata-cache-ttl-secs=10 \
      -o allow_other "$BUCKET" "$MOUNT"
}

finished() { gcloud storage cat "$PLACE/exit" >/dev/null 2>&1; }

upload_log() { gcloud storage cp "$log" "$PLACE/log-$slice-$worker" >/dev/null 2>&1 || true; }

beat() {
  while sleep 60; do
    ((first)) && date +%s | gcloud storage cp - "$PLACE/heartbeat" >/dev/null 2>&1 || true
    upload_log
  done
}

finish() { # STATUS
  upload_log
  printf '%s\n' "$1" | gcloud storage cp - "$PLACE/exit"
}

run_to_the_end() {
  local crashes=0 status
  until finished; do
    status=0
    (cd "$home/source" && exec "${COMMAND[@]}") >>"$log" 2>&1 || status=$?
    case $status in
      0 | 2) # done, or a mistake that no restart mends
        if ((first)); then
          finish "$status"
          return
        fi
        ;;
      75 | 76 | 77) ;; # stopped and saved, stalled, another host lost: go on from the last checkpoint
      *)
        crashes=$((crashes + 1))
        if ((first && crashes > CRASHES)); then
          finish "$status"
          return
        fi
        ;;
    esac
    printf 'startup.sh: the job left with status %s; started again\n' "$status" >>"$log"
    sleep "${ALIGNPRE_PAUSE:-20}"
  done
}

mkdir -p "$home"
exec 9>"$home/lock"
flock -n 9 || exit 0
log=$home/job.log
worker=$(attribute agent-worker-number)
worker=${worker:-0}
slice=$(attribute tpu-env | sed -n "s/^MEGASCALE_SLICE_ID: *'\{0,1\}\([0-9]*\).*/\1/p")
slice=${slice:-0}
first=$((worker == 0 && slice == 0))
PATH=$home/venv/bin:$PATH

finished && exit 0
if ! { install && mount_bucket; } >>"$log" 2>&1; then
  upload_log
  exit 1 # the babysitter hears no heartbeat and starts the script again
fi
beat >/dev/null 2>&1 9>&- &
beating=$!
trap 'kill "$beating" 2>/dev/null || true' EXIT
((first)) && date +%s | gcloud storage cp - "$PLACE/heartbeat"
run_to_the_end
