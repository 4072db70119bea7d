#!/bin/bash
#SBATCH --job-name=$name
#SBATCH --nodes=$nodes
#SBATCH --ntasks-per-node=$tasks_per_node
#SBATCH --gpus-per-node=$gpus_per_node
$cpus
#SBATCH --time=$time
#SBATCH --partition=$partition
#SBATCH --account=$account
#SBATCH --output=$output
#SBATCH --open-mode=append
# The time limit asks for a save first; preempted or out of time, the job queues again.
#SBATCH --signal=TERM@$stop_seconds
#SBATCH --requeue

$setup
# Those that the launch was checked with.
export LLAMA_JAX_VERSIONS=$versions
# One process drives all GPUs of its node; JAX would else take one a task.
export JAX_LOCAL_DEVICE_IDS=$local_devices
# Each task sees all GPUs of its node, of which JAX takes those that are its own.
export SLURM_GPU_BIND=none
# One task that dies takes the others down; the supervisor starts all again.
$program launch supervise $run_dir --max-restarts $max_restarts \
  --stop-seconds $stop_seconds -- \
  $srun $program train $args
code=$$?
if [ $$code -eq 75 ]; then
  scontrol requeue "$$SLURM_JOB_ID"
fi
exit $$code
