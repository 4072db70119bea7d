#!/bin/bash
#SBATCH --job-name="pool"
#SBATCH --nodes=8
#SBATCH --ntasks-per-node=8
#SBATCH --gpus-per-node=8
#SBATCH --cpus-per-task=12
#SBATCH --partition=big
#SBATCH --account=us
#SBATCH --output="/mnt/run/pool/logs/slurm-%j.log"
#SBATCH --open-mode=append
# The time limit asks for a save first; preempted or out of time, the job queues again.
#SBATCH --signal=TERM@600
#SBATCH --requeue

module load cuda
# Those that the launch was checked with.
export LLAMA_JAX_VERSIONS='llama-jax==0.1.0 jax==0.10.2'
# Each task sees all GPUs of its node, of which JAX takes those that are its own.
export SLURM_GPU_BIND=none
# One task that dies takes the others down; the supervisor starts all again.
llama-jax launch supervise /mnt/run/pool --max-restarts 100 \
  --stop-seconds 600 -- \
  srun --kill-on-bad-exit=1 --cpus-per-task=12 llama-jax train llama2_7b --run-dir /mnt/run/pool --data.directory /mnt/run/tokens
code=$?
if [ $code -eq 75 ]; then
  scontrol requeue "$SLURM_JOB_ID"
fi
exit $code
