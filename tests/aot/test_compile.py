"""What the compiler says of memory is read in both of its ways."""

import jax
import pytest

from llama_jax.aot.compile import CompilerFault, DoesNotFit, TooLargeOnChip, compile_program

GIB = 1 << 30


class Refused:
    """A program that the compiler refuses with a message."""

    def __init__(self, message):
        self.message = message

    def compile(self, compiler_options):
        raise jax.errors.JaxRuntimeError(self.message)


@pytest.mark.parametrize(
    ("message", "needed", "limit"),
    [
        ("Ran out of memory in memory space hbm. Used 20.5G of 15.75G hbm.", 20.5, 15.75),
        (
            "the total memory required for HLO temporaries (42.0G) exceeds available HBM (15.75G).",
            42.0,
            15.75,
        ),
        ("it did not work out", 0, 0),
    ],
)
def test_how_much_too_much_it_is(message, needed, limit):
    with pytest.raises(DoesNotFit) as caught:
        compile_program(Refused(f"RESOURCE_EXHAUSTED: {message}"), {})  # pyright: ignore[reportArgumentType]
    assert (caught.value.needed, caught.value.limit) == (needed * GIB, limit * GIB)
    assert caught.value.without_arguments == ("temporaries" in message)


def test_a_kernel_that_is_too_large_for_the_chips_own_memory_is_no_matter_of_rows():
    message = "Ran out of memory in memory space vmem. Used 16.33M of 16.00M vmem."
    with pytest.raises(TooLargeOnChip, match=r"needs 16\.33MB of on-chip memory .* 16\.00MB are"):
        compile_program(Refused(f"RESOURCE_EXHAUSTED: {message}"), {})  # pyright: ignore[reportArgumentType]


def test_an_option_that_a_compiler_does_not_have_is_refused_by_name():
    lowered = jax.jit(lambda x: x).lower(1.0)
    with pytest.raises(ValueError, match="--xla: the compiler does not take it: "):
        compile_program(lowered, {"nonsense": "1"})


def test_a_fault_of_the_compiler_is_told_as_such():
    with pytest.raises(CompilerFault, match="fault of its own: INTERNAL: a bug Another --compute"):
        compile_program(Refused("INTERNAL: a bug"), {})  # pyright: ignore[reportArgumentType]


def test_other_failures_are_passed_on():
    with pytest.raises(jax.errors.JaxRuntimeError, match="UNAVAILABLE"):
        compile_program(Refused("UNAVAILABLE: gone"), {})  # pyright: ignore[reportArgumentType]
