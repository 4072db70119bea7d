"""What was read of a program comes back from JSON and predicts the same time."""

import json

from llama_jax.aot.reading import decode_program, encode_program
from llama_jax.aot.step_time import predict_step_time
from tests.aot.fakes import collective, kernel, machine, program, transfer


def test_a_reading_predicts_what_its_program_does():
    one = program(
        cycles=3_500_000_000,
        matmul_flops=1e15,
        hbm_bytes=10**12,
        kernels=[kernel(flops=1e14)],
        collectives=[collective(exposure="exposed"), collective(beside_cycles=10)],
        transfers=[transfer(gigabytes=40.0), transfer("from host", beside_cycles=10)],
        doubts=["Line 3: a loop."],
    )
    again = decode_program(json.loads(json.dumps(encode_program(one))))
    assert again == one
    pod = machine("v5p:4x4x8", fsdp=128)
    assert predict_step_time(again, pod) == predict_step_time(one, pod)
