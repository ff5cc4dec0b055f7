#!/usr/bin/env bash
# Makes a bucket for runs and an account for the machines, with the least rights that they need.
set -euo pipefail

usage() {
  cat <<'EOF'
usage: bucket.sh create BUCKET --region=REGION --project=ID [--account=NAME] [--days=N] [--dry-run]
       bucket.sh cost   BUCKET [--dry-run]
       bucket.sh delete BUCKET --project=ID [--account=NAME] [--dry-run]

create  makes the bucket in the region of the TPUs (traffic inside a region is free), with folders that can be renamed
        as a whole (checkpoints are), no public access and no copies of deleted objects; makes the account NAME
        (default: alignpre-tpu), which may read and write the objects of this bucket and write logs, and nothing else;
        with --days, objects under packages/ are deleted after so many days
cost    prints how much is stored
delete  deletes the bucket WITH ALL THAT IS IN IT, and the account
EOF
}

die() {
  printf 'bucket.sh: %s\n' "$1" >&2
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

create() {
  [[ -n $region ]] || die "create needs --region, that of the TPUs, e.g. --region=us-west4"
  call storage buckets create "gs://$bucket" --project="$project" --location="$region" \
    --uniform-bucket-level-access --enable-hierarchical-namespace --public-access-prevention --soft-delete-duration=0
  if [[ -n $days ]]; then
    local rule
    rule=$(mktemp)
    printf '{"rule": [{"action": {"type": "Delete"}, "condition": {"age": %d, "matchesPrefix": ["packages/"]}}]}\n' \
      "$days" >"$rule"
    call storage buckets update "gs://$bucket" --lifecycle-file="$rule"
    rm -f "$rule"
  fi
  call iam service-accounts create "$account" --project="$project" --display-name='alignpre TPU machines'
  # Objects of this bucket alone; not the bucket itself, no other bucket.
  call storage buckets add-iam-policy-binding "gs://$bucket" --member="serviceAccount:$email" \
    --role=roles/storage.objectUser
  call projects add-iam-policy-binding "$project" --member="serviceAccount:$email" --role=roles/logging.logWriter \
    --condition=None
  # Whoever books TPUs with this account must be allowed to use it; it is the only right over it that is given.
  local me
  if [[ -n $dry_run ]]; then me=YOU; else me=$(gcloud config get-value account); fi
  call iam service-accounts add-iam-policy-binding "$email" --project="$project" --member="user:$me" \
    --role=roles/iam.serviceAccountUser
  printf 'machines act as: --service_account=%s\n' "$email"
}

delete() {
  if [[ -z $dry_run ]]; then
    local answer
    read -r -p "All of gs://$bucket will be gone. Type its name to go on: " answer
    [[ $answer == "$bucket" ]] || die "not deleted"
  fi
  call storage rm --recursive "gs://$bucket"
  call projects remove-iam-policy-binding "$project" --member="serviceAccount:$email" --role=roles/logging.logWriter \
    --condition=None
  call iam service-accounts delete "$email" --project="$project" --quiet
}

(($#)) || { usage >&2; exit 2; }
case $1 in
  -h | --help | help) usage; exit 0 ;;
  create | cost | delete) verb=$1 ;;
  *) usage >&2; exit 2 ;;
esac
shift
[[ $# -gt 0 && $1 =~ ^[a-z0-9][a-z0-9._-]+$ ]] || die "$verb needs the name of a bucket, without gs://"
bucket=$1
shift

dry_run='' region='' project='' account=alignpre-tpu days=''
while (($#)); do
  case $1 in
    --region=?*) region=${1#*=} ;;
    --project=?*) project=${1#*=} ;;
    --account=?*) account=${1#*=} ;;
    --days=[1-9]*) days=${1#*=} ;;
    --dry-run) dry_run=yes ;;
    *) die "$1 is not an option of this script; options are written --name=value" ;;
  esac
  shift
done
[[ -n $project || $verb == cost ]] || die "$verb needs --project"
email=$account@$project.iam.gserviceaccount.com

case $verb in
  create) create ;;
  cost) call storage du --summarize --readable-sizes "gs://$bucket" ;;
  delete) delete ;;
esac
