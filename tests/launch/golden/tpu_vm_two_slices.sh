#!/bin/bash
# pool: 2 slice(s) of v5p:4x4x4, asked for, set up and started. Run again, it starts again.
set -euo pipefail

queue() {
  gcloud compute tpus queued-resources "$@" --zone=us-east5-a --project=ours
}
state() {
  queue describe pool --format='value(state.state)' 2> /dev/null || echo ABSENT
}
# A shell that ssh starts does not look where `pip install` of a user puts programs.
everywhere() {
  queue ssh pool --node=all --worker=all --command='export PATH="$HOME/.local/bin:$PATH"; '"$1"
}

# 1. The chips. Those that were taken away are asked for again: the run lies elsewhere.
until now="$(state)" && [ "$now" = ACTIVE ]; do
  echo "launch: pool is $now" >&2
  case "$now" in
    FAILED | SUSPENDED) queue delete pool --force --quiet ;;
    ABSENT) queue create pool --node-count=2 --node-prefix=pool --accelerator-type=v5p-128 --runtime-version=v2-alpha-tpuv5 --spot ;;
  esac
  sleep 30
done

# 2. What an earlier launch started saves and ends on every host before anything is changed.
everywhere 'if systemctl cat llama-jax-pool > /dev/null 2>&1; then sudo systemctl disable --now llama-jax-pool; sudo systemctl reset-failed llama-jax-pool 2> /dev/null || true; fi'

# 3. The program.
everywhere 'pip install llama-jax[tpu]'
# The flags were read by this version; another may mean something else by them.
everywhere 'test "$(llama-jax --version)" = "llama-jax 0.1.0"'

# 4. One service a host, which the host itself starts again, after a reboot too.
IFS= read -r -d '' start << 'END_OF_START' || true
set -eu
mkdir -p "$HOME/.llama_jax"
cat > "$HOME/.llama_jax/pool.sh" << 'END_OF_RUN'
export LLAMA_JAX_CLUSTER=auto
# Those that the launch was checked with.
export LLAMA_JAX_VERSIONS='llama-jax==0.1.0 jax==0.10.2 libtpu==0.0.42'
exec llama-jax train llama2_7b --pod 'v5p:4x4x4*2' --run-dir /mnt/run/pool --data.directory /mnt/run/tokens
END_OF_RUN
sudo tee /etc/systemd/system/llama-jax-pool.service > /dev/null << END_OF_UNIT
[Unit]
Description=llama-jax train: pool
Wants=network-online.target
After=network-online.target
# The first start and --max-restarts more, until the next launch or reboot.
StartLimitIntervalSec=infinity
StartLimitBurst=101

[Service]
User=$(id -un)
Environment="PATH=$PATH"
# The disk that all hosts share; as root.
ExecStartPre=+/bin/sh -c "mkdir -p /mnt/run && (mountpoint -q /mnt/run || mount 10.0.0.2:/share /mnt/run)"
ExecStart=/bin/bash $HOME/.llama_jax/pool.sh
Restart=on-failure
RestartSec=15
# Refused: it would be refused again.
RestartPreventExitStatus=2
TimeoutStopSec=600

[Install]
WantedBy=multi-user.target
END_OF_UNIT
sudo systemctl daemon-reload
sudo systemctl enable --quiet llama-jax-pool
sudo systemctl start llama-jax-pool
END_OF_START
everywhere "$start"
