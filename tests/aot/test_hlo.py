"""Text becomes structure, or a ValueError that names the line."""

import pytest

from llama_jax.aot.hlo import Array, parse_module
from llama_jax.aot.program import read_program
from tests.aot.written import MESH, loop, main, module


def test_shapes_of_nested_tuples_stand_in_a_row_with_their_memory():
    text = module(
        main("ROOT %x = ((bf16[2,3]{1,0:T(8,128)(2,1)S(1)}, s32[]), f32[4]{0}) parameter(0)")
    )
    root = parse_module(text).entry.root
    assert root.arrays == (Array("bf16", (2, 3), 1), Array("s32", ()), Array("f32", (4,)))
    assert root.bytes == 12 + 4 + 16


@pytest.mark.parametrize(
    ("dtype", "size"),
    [("pred", 5), ("s4", 3), ("f8e4m3fn", 5), ("bf16", 10), ("c64", 40), ("token", 0)],
)
def test_bytes_follow_the_dtype(dtype, size):
    assert Array(dtype, (5,)).bytes == size


def test_attributes_of_a_kernel_go_over_several_lines():
    text = module(
        main(
            """
            %x = f32[] parameter(0)
            %y = f32[] custom-call(%x), frontend_attributes={kernel_metadata={
            "block_q": 1024
            }}, metadata={op_name="attend"}
            ROOT %z = f32[] negate(%y)
            """
        )
    )
    text = text.replace('  "block_q"', '"block_q"').replace("  }}, ", "}}, ")
    entry = parse_module(text).entry
    assert entry.instructions["y"].op_name == "attend"
    assert entry.root.name == "z"


def test_tables_between_header_and_computations_are_passed_over():
    text = loop().replace("\n\n", '\n\nFileNames\n1 "/step.py"\n\nStackFrames\n1 {id=1}\n\n', 1)
    assert parse_module(text).entry.name == "main"


BROKEN = {
    "line 1: must begin with HloModule": "ENTRY %main () -> () {\n}\n",
    "line 2: ends without an ENTRY": "HloModule m\n",
    "line 3: computation %main has no ROOT": module(main("%x = f32[] parameter(0)")),
    "line 4: no instruction: 'what is this": module(main("what is this\nROOT %x = f32[] iota()")),
    "line 4: %y is used before its line": module(main("ROOT %x = f32[] negate(%y)")),
    "line 4: %f is called before its lines": module(
        main("ROOT %x = f32[] fusion(), kind=kLoop, calls=%f")
    ),
    "line 5: %x is there twice": module(
        main("%x = f32[] parameter(0)\nROOT %x = f32[] negate(%x)")
    ),
    "line 4: parameter\\(one\\) has no number": module(main("ROOT %x = f32[] parameter(one)")),
    "line 5: dot lacks operands": module(main("%x = f32[2] parameter(0)\nROOT %y = f32[] dot(%x)")),
    "line 5: while lacks condition=": module(
        main("%x = () parameter(0)\nROOT %y = () while(%x), body=%b")
    ),
    "line 4: no instruction: 'ROOT %x = f32": module(main("ROOT %x = f32[] negate(%y")),
    "line 3: computation %main does not end": module(main("ROOT %x = f32[] iota()"))[:-3],
    "line 7: computation %main is there twice": module(
        main("ROOT %x = f32[] iota()"), main("ROOT %x = f32[] iota()")
    ),
}


@pytest.mark.parametrize(("complaint", "text"), BROKEN.items(), ids=BROKEN)
def test_a_broken_text_is_refused_by_its_line(complaint, text):
    with pytest.raises(ValueError, match=complaint):
        read_program(text, MESH)


def test_a_program_of_another_mesh_is_refused():
    text = loop().replace("is_scheduled=true", "is_scheduled=true, num_partitions=16")
    with pytest.raises(ValueError, match=r"compiled for 16 devices.*replica=2 \* fsdp=4"):
        read_program(text, MESH)


def test_a_cut_text_never_passes_as_a_program():
    text = loop().rstrip()
    for end in range(0, len(text), 7):
        with pytest.raises(ValueError, match=r"^HLO text, line \d+: "):
            read_program(text[:end], MESH)


def test_a_long_text_is_read_without_quadratic_work():
    chain = "\n".join(f"%x.{i + 1} = f32[8]{{0}} negate(%x.{i})" for i in range(5_000))
    fan = "\n".join(f"%y.{i} = f32[8]{{0}} negate(%x.0)" for i in range(5_000))
    root = "ROOT %z = () tuple(%x.5000)"
    text = module(main(f"%x.0 = f32[8]{{0}} parameter(0)\n{chain}\n{fan}\n{root}"))
    assert read_program(text, MESH).hbm_bytes == 10_000 * 64
