"""A step's time follows from cycles, kernels, bytes and links, and from nothing else."""

import pytest

from llama_jax.aot.step_time import Calibration, collective_seconds, predict_step_time
from tests.aot.fakes import collective, kernel, machine, program, transfer

POD = machine("v5p:4x4x8", fsdp=128)
PLAIN = Calibration(cycles=1.0, kernels=0.5)


def seconds(loaded, where=POD, calibration=PLAIN):
    return predict_step_time(loaded, where, calibration).seconds


def test_cycles_pass_at_the_clock_of_the_chip():
    assert seconds(program(cycles=1_750_000_000)) == pytest.approx(1.0)
    assert seconds(program(cycles=1_500_000_000), machine("v5e:4x4", fsdp=16)) == pytest.approx(1)
    slower = Calibration(cycles=1.2, kernels=0.5)
    assert seconds(program(cycles=1_750_000_000), calibration=slower) == pytest.approx(1.2)


def test_kernels_run_at_a_share_of_the_peak_beside_the_cycles():
    loaded = program(cycles=1_750_000_000, kernels=[kernel(flops=459e12)])
    assert seconds(loaded) == pytest.approx(1.0 + 2.0)


def test_a_device_that_is_half_a_chip_has_half_its_peak():
    halves = machine("tpu7x:2x2x1", fsdp=8)
    assert halves.devices_per_chip == 2
    assert seconds(program(kernels=[kernel(flops=2307e12 / 4)]), halves) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("topology", "kind", "size", "expected"),
    [
        # 1 GB out on each; three closed rings of two links of 90 GB/s.
        ("v5p:4x4x8", "all-gather", 128, 127 / 128 / 540),
        ("v5p:4x4x8", "all-reduce", 128, 2 * 127 / 128 / 540),
        # Of a reduce-scatter the output is a part, and all the others' parts are sent.
        ("v5p:4x4x8", "reduce-scatter", 128, 127 / 540),
        # Eight chips lie along the longest side alone.
        ("v5p:4x4x8", "all-gather", 8, 7 / 8 / 180),
        # A side of 8 on v5e is no ring: each of two lines carries half.
        ("v5e:8x8", "all-gather", 64, 63 / 64 / 90),
        ("v5e:16x16", "all-gather", 256, 255 / 256 / 180),
        # One link, one way.
        ("v5e:8x8", "collective-permute", 64, 1 / 45),
    ],
)
def test_collectives_take_all_the_links_that_their_group_spans(topology, kind, size, expected):
    pod = machine(topology, fsdp=machine(topology).pod.count // size, tensor=size)
    one = collective(kind, axes=("tensor",), size=size)
    assert collective_seconds(one, pod) == pytest.approx(expected)


def test_between_slices_the_network_carries_what_the_chips_have_of_it():
    two = machine("v5p:4x4x8", slices=2, replica=2, fsdp=128)
    across = collective("all-reduce", axes=("replica",), size=2)
    assert collective_seconds(across, two) == pytest.approx(1 / 6.25)
    assert collective_seconds(collective(), two) == collective_seconds(collective(), POD)


def test_a_permutation_that_moves_nothing_takes_no_time():
    stays = collective("collective-permute", axes=(), size=1)
    assert collective_seconds(stays, POD) == 0


def test_an_axis_has_the_links_of_the_sides_that_it_covers():
    # The side of 8 does not close, the one of 16 does.
    oblong = machine("v5e:8x16", fsdp=8, fsdp_line=16)
    assert collective_seconds(collective(size=8), oblong) == pytest.approx(7 / 8 / 45)
    line = collective(axes=("fsdp_line",), size=16)
    assert collective_seconds(line, oblong) == pytest.approx(15 / 16 / 90)
    # Two neighbours have the one link between them, however the ring goes on.
    pairs = machine("v5p:4x4x8", fsdp=64, tensor=2)
    summed = collective("all-reduce", axes=("tensor",), size=2)
    assert collective_seconds(summed, pairs) == pytest.approx(1 / 90)


def test_what_goes_to_all_others_passes_the_links_of_those_between():
    square = machine("v5e:16x16", tensor=256)
    exchanged = collective("all-to-all", axes=("tensor",), size=256)
    assert collective_seconds(exchanged, square) == pytest.approx(16 / 4 / 90)


@pytest.mark.parametrize(
    ("kind", "mesh", "axis", "expected"),
    [
        ("all-gather", {"replica": 2, "fsdp": 8}, "fsdp", 7 / 8 / 450),
        # One GPU a node: one card of 50 GB/s. Four: theirs together. Eight: nearly the switch.
        ("all-reduce", {"replica": 2, "fsdp": 8}, "replica", 1 / 50),
        ("all-gather", {"fsdp": 8, "tensor": 2}, "fsdp", 7 / 8 / 200),
        ("all-gather", {"fsdp": 16}, "fsdp", 15 / 16 / 400),
        # Half of what is exchanged leaves the node, each GPU's over its own card.
        ("all-to-all", {"fsdp": 16}, "fsdp", 1 / 2 / 50),
        ("collective-permute", {"fsdp": 16}, "fsdp", 1 / 50),
    ],
)
def test_between_nodes_of_gpus_each_has_a_network_card(kind, mesh, axis, expected):
    nodes = machine("h100:16", **mesh)
    one = collective(kind, axes=(axis,), size=mesh[axis])
    assert collective_seconds(one, nodes) == pytest.approx(expected)


def test_what_work_is_scheduled_beside_costs_only_what_it_takes_longer():
    gather = 540e-3 * 128 / 127  # GB of 1 ms
    work = {"cycles": 1_750_000_000}
    bare = program(**work, collectives=[collective(gigabytes=gather, exposure="exposed")])
    assert seconds(bare) == pytest.approx(1.001)
    hidden = program(**work, collectives=[collective(gigabytes=gather, beside_cycles=3_500_000)])
    assert seconds(hidden) == pytest.approx(1.0)
    late = program(**work, collectives=[collective(gigabytes=gather, beside_cycles=437_500)])
    assert seconds(late) == pytest.approx(1.00075)


def test_a_step_is_never_shorter_than_its_links_are_busy():
    # Each finds enough work beside it, and all of them the same.
    many = [collective(gigabytes=540.0) for _ in range(3)]
    assert seconds(program(cycles=1_750_000_000, collectives=many)) == pytest.approx(
        3 * 127 / 128, rel=1e-3
    )


def test_gpus_whose_cycles_nobody_estimates_are_bound_by_matmuls_or_memory():
    gpus = machine("h100:8", fsdp=8)
    assert seconds(program(matmul_flops=0.7 * 989e12), gpus) == pytest.approx(1.0)
    assert seconds(program(hbm_bytes=int(2 * 3352e9)), gpus) == pytest.approx(2.0)


def test_the_memory_of_the_host_is_waited_for_as_long_as_no_work_hides_it():
    work = {"cycles": 2 * 1_750_000_000}
    sent = transfer(gigabytes=16.0, beside_cycles=1_750_000_000)
    assert seconds(program(**work, transfers=[sent])) == pytest.approx(2.0)
    late = transfer(gigabytes=24.0, beside_cycles=1_750_000_000)
    assert seconds(program(**work, transfers=[late])) == pytest.approx(2.5)
    bare = predict_step_time(program(**work, transfers=[transfer(gigabytes=8.0)]), POD, PLAIN)
    assert (bare.for_host, bare.seconds) == pytest.approx((0.5, 2.5))


def test_a_step_is_no_shorter_than_one_way_of_the_host_s_link_is_busy():
    ways = [
        transfer(direction, gigabytes=48.0, beside_cycles=10**12)
        for direction in ("to host", "from host")
    ]
    assert seconds(program(cycles=1_750_000_000, transfers=ways)) == pytest.approx(3.0)
    # A device that is half a chip has half the link.
    halves = machine("tpu7x:2x2x1", fsdp=8)
    assert seconds(program(transfers=ways[:1]), halves) == pytest.approx(6.0)
