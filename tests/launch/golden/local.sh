JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=1 JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo LLAMA_JAX_COORDINATOR=127.0.0.1:PORT LLAMA_JAX_NUM_PROCESSES=2 LLAMA_JAX_PROCESS_ID=0 \
  llama-jax train llama2_7b --train.seed 3 --run-dir /mnt/run/pool --data.directory /mnt/run/tokens >> /mnt/run/pool/logs/process-0.log 2>&1 &
JAX_PLATFORMS=cpu JAX_NUM_CPU_DEVICES=1 JAX_CPU_COLLECTIVES_IMPLEMENTATION=gloo LLAMA_JAX_COORDINATOR=127.0.0.1:PORT LLAMA_JAX_NUM_PROCESSES=2 LLAMA_JAX_PROCESS_ID=1 \
  llama-jax train llama2_7b --train.seed 3 --run-dir /mnt/run/pool --data.directory /mnt/run/tokens >> /mnt/run/pool/logs/process-1.log 2>&1 &
wait  # PORT is a free one
