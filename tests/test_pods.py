"""A run laid over a pod keeps its batch; only how it is computed changes."""

import dataclasses

import pytest

from benchmarks.pods import grid_of
from llama_jax.config.pod import PodSettings
from llama_jax.pods import lay_over, parse_slices
from llama_jax.recipe import list_recipes, load_pods, load_recipe

RECIPE = load_recipe("llama2_7b")  # batches of 1,024 rows of 4,096 tokens
KNOWN = {
    "v5p": PodSettings(tokens=16_384, remat="qkv"),
    "v5e": PodSettings(tokens=4_096, min_chips=16),
    "tpu7x": PodSettings(tokens=16_384),
    "v6e": PodSettings(tokens=512, stage=2, tensor=2, context=4, gradients="sum"),
    "h100": PodSettings(tokens=8_192, shards=16),
}


def laid(pod, config=RECIPE):
    return lay_over(config, KNOWN, parse_slices(pod, "--pod"))


@pytest.mark.parametrize(
    ("pod", "replica", "fsdp", "line", "pieces"),
    [
        ("v5p:2x4x4", 1, 8, 4, 8),
        ("v5p:4x4x8*2", 2, 16, 8, 1),
        ("v5p:4x4x4", 1, 16, 4, 4),
        ("v5e:4x8", 1, 4, 8, 32),
        ("tpu7x:2x2x4", 1, 8, 4, 8),
    ],
)
def test_a_pod_splits_parameters_over_a_plane_and_a_line(pod, replica, fsdp, line, pieces):
    config = laid(pod)
    mesh = config.mesh
    assert (mesh.replica, mesh.fsdp, mesh.fsdp_line) == (replica, fsdp, line)
    assert config.train.accumulation_steps == pieces
    assert config.compute.remat == KNOWN[pod.partition(":")[0]].remat


def test_settings_split_layers_rows_and_heads():
    config = laid("v6e:8x8*4")
    mesh = config.mesh
    assert (mesh.replica, mesh.stage, mesh.fsdp, mesh.fsdp_line) == (2, 2, 1, 8)
    assert (mesh.context, mesh.tensor) == (4, 2)
    # 32 groups of 8 devices, 32 rows each; one of 4,096 tokens at once.
    assert config.train.accumulation_steps == 32
    assert config.compute.gradients == "sum"


def test_gpus_hold_copies_of_the_model_apart():
    mesh = laid("h100:8x8").mesh
    assert (mesh.replica, mesh.fsdp, mesh.fsdp_line) == (4, 16, 1)


def test_what_is_learned_is_the_recipes_on_every_pod():
    config = laid("v5p:4x4x8")
    undone = dataclasses.replace(
        config,
        mesh=RECIPE.mesh,
        compute=RECIPE.compute,
        train=dataclasses.replace(config.train, accumulation_steps=1),
    )
    assert undone == RECIPE


def test_pieces_divide_every_stage_of_a_growing_batch():
    train = dataclasses.replace(RECIPE.train, batch_size=384, batch_ramp=((10, 1536),))
    config = laid("v5p:2x4x4", dataclasses.replace(RECIPE, train=train))
    assert config.train.accumulation_steps == 12  # 12 and 48 rows a device; four at once


@pytest.mark.parametrize(
    ("pod", "message"),
    [
        ("a100:8", "has no settings for a100"),
        ("h100:8", "8 chips cannot be divided by shards=16"),
        ("v6e:8x8*3", "3 slices cannot be divided by stage=2"),
        ("v6e:1x1*2", "1 devices cannot be divided by tensor=2 \\* context=4"),
        ("v5e:2x4", "needs 16"),
        ("v5p:8x8x16*3", "train.batch_size=1024 rows cannot be split over the 3072 groups"),
        ("v5p:4x4x8*0", "no number of slices"),
        ("v5p:4x4x9", "there is no such slice"),
    ],
)
def test_what_cannot_be_laid_over_a_pod_is_refused(pod, message):
    with pytest.raises(ValueError, match=message):
        laid(pod)


TABLES = [(name, chip) for name in list_recipes() for chip in load_pods(name)]


@pytest.mark.parametrize(("name", "chip"), TABLES)
def test_the_tables_of_recipes_are_of_slices_that_exist_and_divide_their_batches(name, chip):
    settings = load_pods(name)[chip]
    # Grids of the table in docs/pods; GPUs form none.
    grid = settings.min_chips if chip == "h100" else grid_of(name, chip, settings)
    slices = parse_slices(f"{chip}:{grid}*{settings.stage}", "")
    config = lay_over(load_recipe(name), {chip: settings}, slices)
    mesh, batch = config.mesh, config.train.batch_size
    groups = mesh.replica * mesh.stage * mesh.fsdp * mesh.fsdp_line
    assert groups * mesh.tensor * mesh.context == slices.num_devices
    assert batch % (groups * config.train.accumulation_steps) == 0
    assert settings.tokens * settings.context * settings.tensor >= config.data.seq_len
    assert config.model.num_layers % mesh.stage == 0


def test_recipes_from_7b_have_a_table_for_every_tpu():
    large = {name for name, _ in TABLES}
    assert {"llama1_7b", "llama2_70b", "llama3_8b", "llama3_1_405b"} <= large
    for name in large:
        missing = {"v4", "v5e", "v5p", "v6e", "tpu7x"} - load_pods(name).keys()
        # docs/pods tells what is too large for the largest slices of these.
        too_small = {"llama3_1_405b": {"v5e", "v6e"}}
        assert missing == too_small.get(name, set())


@pytest.mark.parametrize("flag", [("--pod", "v5p:4x4x4"), ("--pod=v5p:4x4x4",)])
def test_fields_that_are_given_come_on_top_of_the_pods(flag):
    from llama_jax.cli.train import parse

    config, options = parse(["llama2_7b", *flag, "--compute.remat", "attention"])
    assert options.pod == "v5p:4x4x4"
    assert config.mesh.fsdp_line == 4
    assert config.train.accumulation_steps == 4
    assert config.compute.remat == "attention"
