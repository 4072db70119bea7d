#!/bin/bash
# $name: $slices slice(s) of $pod, asked for, set up and started. Run again, it starts again.
set -euo pipefail

queue() {
  gcloud compute tpus queued-resources "$$@" $where
}
state() {
  queue describe $name --format='value(state.state)' 2> /dev/null || echo ABSENT
}
everywhere() {
  queue ssh $name --node=all --worker=all --command="$$1"
}

# 1. The chips. Those that were taken away are asked for again: the run is on the shared disk.
while [ "$$(state)" != ACTIVE ]; do
  case "$$(state)" in
    FAILED | SUSPENDED) queue delete $name --force --quiet ;;
    ABSENT) queue create $name $create ;;
  esac
  sleep 30
done

# 2. The program, and the disk that all hosts share.
everywhere $install
# The flags were read by this version; another may mean something else by them.
everywhere $check

# 3. One service a host, which the host itself starts again; 2 means refused, and stays down.
everywhere $start
