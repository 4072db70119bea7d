"""How often a loop runs is read from its counter, wherever XLA has put the parts of it."""

import pytest

from llama_jax.aot.hlo import parse_module
from llama_jax.aot.loops import trip_counts
from llama_jax.aot.program import read_program
from tests.aot.written import MESH, computation, main, module

STATE = "(s32[], s32[])"


def parts(name: str, body: str, condition: str) -> tuple[str, str]:
    """A loop over a counter and another integer; both read the state."""
    read = f"""
        %s = {STATE} parameter(0)
        %i = s32[] get-tuple-element(%s), index=0
        %n = s32[] get-tuple-element(%s), index=1
    """
    return computation(name, read + body), computation(f"{name}.while", read + condition)


UP = "%one = s32[] constant(1)\n%next = s32[] add(%i, %one)\nROOT %t = () tuple(%next, %n)"
BELOW = "ROOT %c = pred[] compare(%i, %n), direction=LT"


def start(i: str, n: str, attributes: str = "") -> str:
    return main(
        f"""
        %a = s32[] {i}
        %b = s32[] {n}
        %t = {STATE} tuple(%a, %b)
        ROOT %w = {STATE} while(%t), condition=%loop.while, body=%loop{attributes}
        """
    )


def trips(body: str, condition: str, entry: str, *inside: str) -> int | None:
    text = module(*inside, *parts("loop", body, condition), entry)
    return trip_counts(parse_module(text))["loop"]


def test_the_bound_may_be_a_part_of_the_state():
    assert trips(UP, BELOW, start("constant(3)", "constant(10)")) == 7


def test_a_loop_may_count_down():
    down = UP.replace("add(%i, %one)", "subtract(%i, %one)")
    above = BELOW.replace("LT", "GT")
    assert trips(down, above, start("constant(9)", "constant(4)")) == 5


@pytest.mark.parametrize(("bound", "expected"), [(12, 4), (13, None)])
def test_a_loop_may_run_until_its_counter_meets_the_bound(bound, expected):
    step = UP.replace("constant(1)", "constant(3)")
    until = BELOW.replace("LT", "NE")
    assert trips(step, until, start("constant(0)", f"constant({bound})")) == expected


def test_two_counters_may_approach_each_other():
    both = "%one = s32[] constant(1)\n%up = s32[] add(%i, %one)\n%down = s32[] subtract(%n, %one)\n"
    both += "ROOT %t = () tuple(%up, %down)"
    assert trips(both, BELOW, start("constant(0)", "constant(9)")) == 5


def test_a_loop_whose_condition_fails_at_once_does_not_run():
    assert trips(UP, BELOW, start("constant(9)", "constant(9)")) == 0


def test_counter_and_condition_may_be_computed_in_fusions():
    add = computation(
        "add",
        """
        %p = s32[] parameter(0)
        %two = s32[] constant(2)
        ROOT %q = s32[] add(%p, %two)
        """,
    )
    less = computation(
        "less",
        """
        %p = s32[] parameter(0)
        %q = s32[] parameter(1)
        ROOT %c = pred[] compare(%q, %p), direction=GT
        """,
    )
    body = (
        "%copied = s32[] copy(%i)\n%next = s32[] fusion(%copied), kind=kLoop, calls=%add\n"
        "ROOT %t = () tuple(%next, %n)"
    )
    condition = "ROOT %c = pred[] fusion(%i, %n), kind=kLoop, calls=%less"
    assert trips(body, condition, start("constant(0)", "constant(9)"), add, less) == 5


def test_a_count_that_xla_states_is_taken():
    known = ', backend_config={"known_trip_count":{"n":"8"}}'
    assert trips(UP, BELOW, start("partition-id()", "constant(9)", known)) == 8


@pytest.mark.parametrize(
    ("body", "condition", "i"),
    [
        (UP, BELOW, "partition-id()"),
        (UP.replace("add(%i, %one)", "multiply(%i, %one)"), BELOW, "constant(0)"),
        (UP.replace("tuple(%next, %n)", "tuple(%i, %n)"), BELOW, "constant(0)"),
        (UP, "ROOT %c = pred[] is-finite(%i)", "constant(0)"),
    ],
    ids=["start", "step", "standing still", "condition"],
)
def test_what_cannot_be_read_is_not_guessed(body, condition, i):
    assert trips(body, condition, start(i, "constant(9)")) is None


def test_two_loops_of_one_body_are_counted_if_they_agree():
    again = """
        %d = s32[] constant(BOUND)
        %t.2 = (s32[], s32[]) tuple(%a, %d)
        %w.2 = (s32[], s32[]) while(%t.2), condition=%loop.while, body=%loop
        """
    entry = start("constant(0)", "constant(9)").replace("ROOT %w", again + "ROOT %w")
    assert trips(UP, BELOW, entry.replace("BOUND", "9")) == 9
    assert trips(UP, BELOW, entry.replace("BOUND", "8")) is None


def test_a_loop_in_a_loop_multiplies_and_may_take_constants_from_outside():
    work = "%x = f32[4] constant({...})\n%y = f32[4] negate(%x) @10\n"
    inner = parts("inner", work + UP, BELOW)
    # The inner loop starts from the outer one's bound, which never changes.
    outer = parts(
        "loop",
        f"""
        %twenty = s32[] constant(20)
        %t.1 = {STATE} tuple(%n, %twenty)
        %w = {STATE} while(%t.1), condition=%inner.while, body=%inner
        """
        + UP,
        BELOW,
    )
    program = read_program(module(*inner, *outer, start("constant(0)", "constant(6)")), MESH)
    assert program.cycles == 10 * 6 * 14
    assert [(one.name, one.count) for one in program.work] == [("y", 84)]


def test_a_counter_that_never_ends_in_a_constant_is_given_up():
    adds = "\n".join(f"%a.{n + 1} = s32[] add(%a.{n}, %a.{n})" for n in range(500))
    body = f"%a.0 = s32[] add(%i, %i)\n{adds}\nROOT %t = () tuple(%a.500, %n)"
    assert trips(body, BELOW, start("constant(1)", "constant(9)")) is None
