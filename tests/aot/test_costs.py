"""FLOPs, cycles, bytes and kernels of small programs, counted by hand."""

import pytest

from llama_jax.aot.program import read_program
from tests.aot.written import MATMUL, MATMUL_FLOPS, MESH, computation, main, module


def read(*computations: str):
    return read_program(module(*computations), MESH)


@pytest.mark.parametrize(
    ("line", "flops"),
    [
        # As many as output elements times the contracted sizes.
        (
            (
                "f32[3,8,4]{2,1,0} dot(%x, %y), lhs_batch_dims={0}, rhs_batch_dims={0}, "
                "lhs_contracting_dims={2}, rhs_contracting_dims={1}"
            ),
            2 * 3 * 8 * 4 * 16,
        ),
        # Heads as a window over padding: each of 3 places meets one element, not three.
        (
            (
                "f32[8,3,4]{2,1,0} convolution(%a, %b), "
                "window={size=3 pad=2_2 rhs_reversal=1}, dim_labels=b0f_0io->b0f"
            ),
            2 * 8 * 3 * 4 * 16,
        ),
        # A window that contracts: each of 8 rows sums 3 * 16 products.
        (
            "f32[8,1,4]{2,1,0} convolution(%c, %b), window={size=3}, dim_labels=b0f_0io->b0f",
            2 * 8 * 4 * 3 * 16,
        ),
        # A batch of 3, written as a dilated input under a wide stride.
        (
            (
                "f32[8,3,4]{2,1,0} convolution(%c, %b), "
                "window={size=3 stride=2 pad=0_2 lhs_dilate=3}, dim_labels=b0f_0io->b0f"
            ),
            2 * 8 * 3 * 4 * 16,
        ),
    ],
    ids=["dot", "heads", "window", "dilated"],
)
def test_matmul_flops_are_those_of_real_multiplications(line, flops):
    program = read(
        main(
            f"""
            %x = bf16[3,8,16]{{2,1,0}} parameter(0)
            %y = bf16[3,16,4]{{2,1,0}} parameter(1)
            %a = bf16[8,1,16]{{2,1,0}} parameter(2)
            %b = bf16[3,16,4]{{2,1,0}} parameter(3)
            %c = bf16[8,3,16]{{2,1,0}} parameter(4)
            ROOT %out = {line}
            """
        )
    )
    assert program.matmul_flops == flops


def test_a_convolution_whose_labels_do_not_fit_is_refused_by_its_line():
    with pytest.raises(ValueError, match="line 5: dim_labels do not fit"):
        read(
            main(
                """
                %x = f32[8,16]{1,0} parameter(0)
                ROOT %y = f32[8,4]{1,0} convolution(%x, %x), dim_labels=b0f_0io->b0f
                """
            )
        )


def test_of_two_branches_the_one_that_costs_most_counts_and_is_told():
    branch = computation("cheap", "ROOT %p.2 = f32[4]{0} parameter(0)")
    costly = computation(
        "costly",
        """
        %p.3 = f32[4]{0} parameter(0)
        ROOT %n = f32[4]{0} negate(%p.3) @30
        """,
    )
    program = read(
        branch,
        costly,
        main(
            """
            %which = pred[] parameter(0)
            %x = f32[4]{0} parameter(1)
            ROOT %y = f32[4]{0} conditional(%which, %x, %x), branch_computations={%cheap, %costly}
            """
        ),
    )
    assert program.cycles == 30
    assert "which branch of y runs" in program.doubts[0]


def test_cycles_of_collectives_do_not_count_and_those_of_calls_do():
    program = read(
        MATMUL,
        computation(
            "called",
            """
            %x = bf16[8,16]{1,0} parameter(0)
            %w = bf16[16,4]{1,0} parameter(1)
            ROOT %f = bf16[8,4]{1,0} fusion(%x, %w), kind=kOutput, calls=%matmul
            """,
        ),
        main(
            """
            %x = bf16[8,16]{1,0} parameter(0)
            %w = bf16[16,4]{1,0} parameter(1)
            %gathered = bf16[8,64]{1,0} all-gather(%x), replica_groups={}, dimensions={1} @500
            ROOT %y = bf16[8,4]{1,0} call(%x, %w), to_apply=%called
            """
        ),
    )
    # The fusion states no estimate of its own; that of what is in it stands.
    assert program.cycles == 70
    assert program.matmul_flops == MATMUL_FLOPS
    assert [(one.name, one.cost.cycles) for one in program.work] == [("f", 70)]


SLICED = computation(
    "sliced",
    """
    %stack = f32[32,64]{1,0} parameter(0)
    %i = s32[]{:S(6)} parameter(1)
    %small = f32[64]{0:S(1)} parameter(2)
    %zero = s32[] constant(0)
    %slice = f32[1,64]{1,0} dynamic-slice(%stack, %i, %zero), dynamic_slice_sizes={1,64}
    %flat = f32[64]{0} bitcast(%slice)
    %sum = f32[64]{0} add(%flat, %small)
    %row = f32[1,64]{1,0} bitcast(%sum)
    ROOT %stack.1 = f32[32,64]{1,0} dynamic-update-slice(%stack, %row, %i, %zero)
    """,
)


def test_of_a_stack_the_slice_that_is_read_and_the_one_that_is_written_count():
    program = read(
        SLICED,
        main(
            """
            %stack = f32[32,64]{1,0} parameter(0)
            %i = s32[]{:S(6)} parameter(1)
            %small = f32[64]{0:S(1)} parameter(2)
            ROOT %out = f32[32,64]{1,0} fusion(%stack, %i, %small), kind=kLoop, calls=%sliced
            """
        ),
    )
    assert program.hbm_bytes == 2 * 64 * 4


def test_a_copy_into_fast_memory_reads_once_and_what_reads_it_there_reads_nothing():
    program = read(
        main(
            """
            %x = f32[64]{0} parameter(0)
            %begun = (f32[64]{0:S(1)}, f32[64]{0}, u32[]{:S(2)}) copy-start(%x)
            %near = f32[64]{0:S(1)} copy-done(%begun)
            ROOT %y = f32[64]{0} negate(%near)
            """
        )
    )
    assert program.hbm_bytes == 64 * 4 + 64 * 4


@pytest.mark.parametrize(("space", "moved"), [("{0:S(1)}", 16 * 4), ("{0}", 2 * 16 * 4)])
def test_a_prefetch_of_a_slice_moves_the_slice(space, moved):
    program = read(
        main(
            f"""
            %x = f32[64]{{0}} parameter(0)
            %begun = ((f32[64]{{0}}), f32[16]{space}, s32[]{{:S(2)}}) slice-start(%x)
            ROOT %near = f32[16]{space} slice-done(%begun)
            """
        )
    )
    assert program.hbm_bytes == moved


SPLASH = """
%mask = s8[1,2,2]{2,1,0} parameter(0)
%q = bf16[2,8,2048,128]{3,2,1,0} parameter(1)
%k = bf16[2,4,2048,128]{3,2,1,0} parameter(2)
%v = bf16[2,4,2048,128]{3,2,1,0} parameter(3)
"""
SCORES = 2 * 8 * (2048 * 2049 // 2) * 128


OUT, SCRATCH = "bf16[2,8,2048,128]{3,2,1,0}", "f32[2,1024,128]{2,1,0}"
DKV = "bf16[2,4,2048,128]{3,2,1,0}, bf16[2,4,2048,128]{3,2,1,0}"


@pytest.mark.parametrize(
    ("name", "results", "matmuls"),
    [
        ("fwd_segmented_residuals.2", f"({SCRATCH}, {OUT}, f32[2,8,2048,128])", 2),
        ("dkv_segmented_no_residuals.1", f"({SCRATCH}, bf16[2,2,8,2048,128], {DKV})", 5),
        ("dkv_segmented_no_residuals.1", f"({SCRATCH}, {DKV})", 4),
        ("dq_segmented_no_residuals.1", OUT, 3),
    ],
)
def test_attention_kernels_count_scores_below_the_diagonal(name, results, matmuls):
    call = f"ROOT %splash_mha_{name} = {results} custom-call(%mask, %q, %k, %v)"
    program = read(main(SPLASH + call + ', custom_call_target="tpu_custom_call"'))
    (kernel,) = program.kernels
    assert kernel.launches == 1
    assert kernel.flops == 2 * matmuls * SCORES
    assert program.hbm_bytes == 0


def test_bytes_of_a_kernel_are_its_operands_and_results_of_all_launches():
    call = f"%splash_mha_fwd.N = {OUT} custom-call(%mask, %q, %k, %v)"
    call += ', custom_call_target="tpu_custom_call"\n'
    program = read(main(SPLASH + call.replace("N", "1") + "ROOT " + call.replace("N", "2")))
    (kernel,) = program.kernels
    assert kernel.launches == 2
    assert kernel.bytes == 2 * (4 + 2 * (8 + 4 + 4 + 8) * 2 * 2048 * 128)


def test_a_part_of_the_queries_sees_the_keys_that_an_average_one_does():
    program = read(
        main(
            SPLASH.replace("%q = bf16[2,8,2048,128]", "%q = bf16[2,8,512,128]")
            + "ROOT %splash_mha_fwd = bf16[2,8,512,128]{3,2,1,0} custom-call(%mask, %q, %k, %v),"
            ' custom_call_target="tpu_custom_call"'
        )
    )
    assert program.kernels[0].flops == 4 * SCORES / 4


def test_a_kernel_that_is_not_known_is_told():
    program = read(
        main(
            """
            %x = f32[64]{0} parameter(0)
            ROOT %mine.3 = f32[64]{0} custom-call(%x), custom_call_target="tpu_custom_call"
            """
        )
    )
    assert (program.kernels[0].name, program.kernels[0].flops) == ("mine", 0)
    assert "what mine computes is not known" in program.doubts[0]


def test_matmuls_and_attention_of_gpu_libraries_count():
    attention = (
        'backend_config={"cudnn_fmha_backend_config":{"intermediate_tensor_shape":{"element_type":'
        '"BF16","dimensions":["2","8","512","512"],"tuple_shapes":[]},"mask_type":"CAUSAL"}}'
    )
    program = read(
        main(
            f"""
            %x = bf16[64,32]{{1,0}} parameter(0)
            %w = bf16[32,16]{{1,0}} parameter(1)
            %q = bf16[2,512,8,64]{{3,2,1,0}} parameter(2)
            %k = bf16[2,512,2,64]{{3,2,1,0}} parameter(3)
            %y = (bf16[64,16]{{1,0}}, s8[4096]{{0}}) custom-call(%x, %w), custom_call_target="__cublas$lt$matmul", backend_config={{"gemm_backend_config":{{"dot_dimension_numbers":{{"lhs_contracting_dimensions":["1"]}}}}}}
            %f = bf16[2,8,512,64]{{3,1,2,0}} custom-call(%q, %k, %k), custom_call_target="__cudnn$fmhaSoftmax", {attention}
            ROOT %b = bf16[2,8,512,64]{{3,1,2,0}} custom-call(%q, %k, %k, %f), custom_call_target="__cudnn$fmhaSoftmaxBackward", {attention}
            """  # noqa: E501
        )
    )
    assert program.matmul_flops == 2 * 64 * 16 * 32
    scores = 2 * 8 * (512 * 513 // 2) * 64
    flops = {kernel.name: kernel.flops for kernel in program.kernels}
    assert flops == {"cudnn$fmhaSoftmax": 4 * scores, "cudnn$fmhaSoftmaxBackward": 10 * scores}
