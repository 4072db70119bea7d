#!/bin/bash
# pool: 2 slice(s) of v5p:4x4x4, asked for, set up and started. Run again, it starts again.
set -euo pipefail

queue() {
  gcloud compute tpus queued-resources "$@" --zone=us-east5-a --project=ours
}
state() {
  queue describe pool --format='value(state.state)' 2> /dev/null || echo ABSENT
}
everywhere() {
  queue ssh pool --node=all --worker=all --command="$1"
}

# 1. The chips. Those that were taken away are asked for again: the run is on the shared disk.
while [ "$(state)" != ACTIVE ]; do
  case "$(state)" in
    FAILED | SUSPENDED) queue delete pool --force --quiet ;;
    ABSENT) queue create pool --node-count=2 --node-prefix=pool --accelerator-type=v5p-128 --runtime-version=v2-alpha-tpuv5 --spot ;;
  esac
  sleep 30
done

# 2. The program, and the disk that all hosts share.
everywhere 'pip install llama-jax[tpu] && sudo mount 10.0.0.2:/share /mnt/run'
# The flags were read by this version; another may mean something else by them.
everywhere 'test "$(llama-jax --version)" = "llama-jax 0.1.0"'

# 3. One service a host, which the host itself starts again; 2 means refused, and stays down.
everywhere 'sudo systemctl stop llama-jax-pool 2> /dev/null; sudo systemctl reset-failed 2> /dev/null; sudo systemd-run --unit=llama-jax-pool --collect --uid="$(id -u)" --property=Restart=on-failure --property=RestartSec=15 --property=RestartPreventExitStatus=2 --property=StartLimitIntervalSec=3600 --property=StartLimitBurst=100 --property=TimeoutStopSec=600 --setenv=LLAMA_JAX_CLUSTER=auto --setenv=PATH="$PATH" --setenv=HOME="$HOME" "$(command -v llama-jax)" train llama2_7b --pod '"'"'v5p:4x4x4*2'"'"' --run-dir /mnt/run/pool --data.directory /mnt/run/tokens'
