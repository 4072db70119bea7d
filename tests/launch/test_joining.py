"""A process joins others exactly where its environment says that there are some."""

import pytest

from llama_jax.train.processes import find_arguments

OURS = {
    "LLAMA_JAX_COORDINATOR": "host-0:8476",
    "LLAMA_JAX_NUM_PROCESSES": "4",
    "LLAMA_JAX_PROCESS_ID": "3",
}
TASK = {
    "SLURM_JOB_ID": "7",
    "SLURM_NTASKS": "16",
    "SLURM_PROCID": "2",
    "SLURM_STEP_NODELIST": "a[1-2]",
}


@pytest.mark.parametrize(
    "environment",
    [
        {},
        OURS | {"LLAMA_JAX_NUM_PROCESSES": "1", "LLAMA_JAX_PROCESS_ID": "0"},
        TASK | {"SLURM_NTASKS": "1"},
        {"SLURM_JOB_ID": "7", "SLURM_NTASKS": "16"},  # an allocation, outside of srun
        {"TPU_WORKER_HOSTNAMES": "localhost"},
    ],
)
def test_a_process_may_be_alone(environment):
    assert find_arguments(environment) is None


@pytest.mark.parametrize(
    "environment",
    [
        TASK,
        {"TPU_WORKER_HOSTNAMES": "a,b", "TPU_WORKER_ID": "1"},
        {"TPU_WORKER_HOSTNAMES": "a", "MEGASCALE_NUM_SLICES": "2"},
        {"LLAMA_JAX_CLUSTER": "auto"},
    ],
)
def test_jax_finds_the_others_of_a_platform_that_it_knows(environment):
    assert find_arguments(environment) == {}


def test_our_own_launchers_come_first():
    assert find_arguments(TASK | OURS) == {
        "coordinator_address": "host-0:8476",
        "num_processes": 4,
        "process_id": 3,
        "cluster_detection_method": "deactivate",
    }


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"LLAMA_JAX_PROCESS_ID": "4"}, "LLAMA_JAX_PROCESS_ID=4 must be below"),
        ({"LLAMA_JAX_PROCESS_ID": ""}, "LLAMA_JAX_PROCESS_ID is not set"),
        (
            {"LLAMA_JAX_NUM_PROCESSES": "many"},
            "LLAMA_JAX_NUM_PROCESSES='many' must be a number",
        ),
    ],
)
def test_an_environment_that_contradicts_itself_is_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        find_arguments(OURS | change)


def test_an_unknown_cluster_is_refused():
    with pytest.raises(ValueError, match="LLAMA_JAX_CLUSTER=slrum must be auto"):
        find_arguments({"LLAMA_JAX_CLUSTER": "slrum"})
