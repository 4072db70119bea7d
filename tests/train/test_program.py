"""The compiled parts of a run, and when their failures are told."""

from concurrent.futures import Future

import pytest

from llama_jax.train.program import Program
from tests.train.tiny_run import tiny_config


def test_a_larger_batch_that_does_not_compile_stops_the_run_before_it_is_needed():
    config = tiny_config(train__batch_ramp=((10, 16),))
    steps: dict[int, Future] = {8: Future(), 16: Future()}
    program = Program(config=config, graphdef=None, optimizer=None, abstract=None, steps=steps)
    steps[8].set_result("small")
    assert program.step_after(0) == program.step_after(9) == "small"
    steps[16].set_exception(MemoryError("16 rows need more"))
    with pytest.raises(MemoryError, match="16 rows"):
        program.step_after(0)
