set -eu
mkdir -p "$$HOME/.llama_jax"
cat > "$$HOME/.llama_jax/$name.sh" << 'END_OF_RUN'
export LLAMA_JAX_CLUSTER=auto
# Those that the launch was checked with.
export LLAMA_JAX_VERSIONS=$versions
exec $program train $args
END_OF_RUN
sudo tee /etc/systemd/system/$unit.service > /dev/null << END_OF_UNIT
[Unit]
Description=llama-jax train: $name
Wants=network-online.target
After=network-online.target
# The first start and --max-restarts more, until the next launch or reboot.
StartLimitIntervalSec=infinity
StartLimitBurst=$starts

[Service]
User=$$(id -un)
Environment="PATH=$$PATH"
# The disk that all hosts share; as root.
ExecStartPre=+/bin/sh -c "mkdir -p $mount && (mountpoint -q $mount || mount $disk $mount)"
ExecStart=/bin/bash $$HOME/.llama_jax/$name.sh
Restart=on-failure
RestartSec=15
# Refused: it would be refused again.
RestartPreventExitStatus=2
TimeoutStopSec=$stop_seconds

[Install]
WantedBy=multi-user.target
END_OF_UNIT
sudo systemctl daemon-reload
sudo systemctl enable --quiet $unit
sudo systemctl start $unit
