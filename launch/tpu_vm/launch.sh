#!/bin/bash
# $name: $slices slice(s) of $pod, asked for, set up and started. Run again, it starts again.
set -euo pipefail

queue() {
  gcloud compute tpus queued-resources "$$@" $where
}
state() {
  queue describe $name --format='value(state.state)' 2> /dev/null || echo ABSENT
}
# A shell that ssh starts does not look where `pip install` of a user puts programs.
everywhere() {
  queue ssh $name --node=all --worker=all --command='export PATH="$$HOME/.local/bin:$$PATH"; '"$$1"
}

# 1. The chips. Those that were taken away are asked for again: the run lies elsewhere.
until now="$$(state)" && [ "$$now" = ACTIVE ]; do
  echo "launch: $name is $$now" >&2
  case "$$now" in
    FAILED | SUSPENDED) queue delete $name --force --quiet ;;
    ABSENT) queue create $name $create ;;
  esac
  sleep 30
done

# 2. What an earlier launch started saves and ends on every host before anything is changed.
everywhere $stop

# 3. The program.
everywhere $install
# The flags were read by this version; another may mean something else by them.
everywhere $check

# 4. One service a host, which the host itself starts again, after a reboot too.
IFS= read -r -d '' start << 'END_OF_START' || true
$start
END_OF_START
everywhere "$$start"
