#!/usr/bin/env bash
# Tells Ray when EC2 is about to take this spot machine away, two minutes ahead: no new work comes here, and a training writes a checkpoint.
# Called every few seconds on every node (cluster.yaml). Arguments go to `ray drain-node`; without them it is the node of this machine.
set -u
here=$(cd "$(dirname "$0")/.." && pwd)
service=${IMDS:-http://169.254.169.254}/latest
told=/tmp/ray/session_latest/spot-notice          # once is enough
[ -e "$told" ] && exit 0
token=$(curl -sf -m 2 -X PUT "$service/api/token" -H 'X-aws-ec2-metadata-token-ttl-seconds: 60') || exit 0
notice=$(curl -sf -m 2 -H "X-aws-ec2-metadata-token: $token" "$service/meta-data/spot/instance-action") || exit 0     # 404: none
"$here/.venv/bin/ray" drain-node --reason DRAIN_NODE_REASON_PREEMPTION --reason-message "EC2: $notice" --deadline-remaining-seconds 110 "$@" &&
  echo "$notice" > "$told"
