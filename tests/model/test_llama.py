"""Properties of the decoder that hold whatever its weights are."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import PartitionSpec as P

from llama_jax.config import ComputeConfig, LinearRope, Llama3Rope
from llama_jax.flops import count_params
from llama_jax.model import abstract_params, init_params, resolve_dtype
from llama_jax.model.norm import RMSNorm
from tests.model.tiny_model import (
    FLOAT32,
    MODEL,
    hidden,
    jit,
    layout,
    logits,
    new_model,
    new_params,
    pack,
    random_rows,
)

TIED = dataclasses.replace(MODEL, tie_embeddings=True)
DOCUMENT = [7, 3, 60, 21, 9, 33]


def test_a_token_never_sees_the_future(one_device):
    rows = random_rows(0)
    edited = rows._replace(tokens=np.copy(rows.tokens))
    edited.tokens[:, 9:] = (edited.tokens[:, 9:] + 1) % MODEL.vocab_size
    model = new_model()
    before, after = hidden(model, rows), hidden(model, edited)
    np.testing.assert_array_equal(before[:, :9], after[:, :9])
    assert not np.any(np.all(np.isclose(before[:, 9:], after[:, 9:]), axis=-1))


def test_documents_never_mix(one_device):
    before = pack([[1, 2, 3], DOCUMENT, [4, 5]], seq_len=12)
    after = pack([[9, 8, 7], DOCUMENT, [6, 6]], seq_len=12)
    model = new_model()
    a, b = hidden(model, before), hidden(model, after)
    np.testing.assert_array_equal(a[:, 3:9], b[:, 3:9])
    assert not np.any(np.all(np.isclose(a[:, :3], b[:, :3]), axis=-1))


@pytest.mark.parametrize("rope", [MODEL.rope, LinearRope(factor=2.0), Llama3Rope()])
def test_a_document_does_not_depend_on_its_place_in_the_row(one_device, rope):
    rows = pack(
        [DOCUMENT],
        [[5, 5, 5, 5], DOCUMENT],
        [[1], [2, 3], DOCUMENT, [8, 8, 8]],
        [DOCUMENT, [4] * 6],
        seq_len=12,
    )
    model = new_model(dataclasses.replace(MODEL, rope=rope))
    outputs = hidden(model, rows)
    alone = outputs[0, :6]
    for row, start in ((1, 4), (2, 3), (3, 0)):
        np.testing.assert_allclose(outputs[row, start : start + 6], alone, atol=1e-5)


def test_order_within_a_document_matters(one_device):
    rows = pack([DOCUMENT], [[3, 7, *DOCUMENT[2:]]], seq_len=6)
    outputs = hidden(new_model(), rows)
    assert not np.allclose(outputs[0, -1], outputs[1, -1], atol=1e-3)


@pytest.mark.parametrize("config", [MODEL, TIED], ids=["untied", "tied"])
def test_the_parameters_are_those_that_are_counted(one_device, config):
    _, params = new_params(config)
    assert sum(leaf.size for leaf in jax.tree.leaves(params)) == count_params(config).total
    assert {leaf.dtype for leaf in jax.tree.leaves(params)} == {jnp.dtype("float32")}
    assert ("output" in params) == (not config.tie_embeddings)


def test_a_tied_model_scores_with_its_embedding(one_device):
    model = new_model(TIED)
    rows = random_rows(1, rows=2)
    expected = np.asarray(hidden(model, rows)) @ np.asarray(model.embed.table[...]).T
    np.testing.assert_allclose(logits(model, rows), expected, atol=1e-5)
    np.testing.assert_array_equal(model.output_table, model.embed.table[...])


def test_a_tied_table_learns_from_both_of_its_uses(one_device):
    graphdef, params = new_params(TIED)
    rows = pack([DOCUMENT], seq_len=6)

    @jit
    def gradient(params: nnx.State) -> nnx.State:
        return jax.grad(lambda p: jnp.sum(nnx.merge(graphdef, p)(*rows)[0, 0, 63]))(params)

    table = gradient(params).embed.table[...]
    assert np.any(table[DOCUMENT[0]] != 0)  # as what was read
    assert np.any(table[63] != 0)  # as what was scored


def test_bfloat16_is_close_and_logits_stay_float32(one_device):
    rows = random_rows(2, rows=2)
    half = new_model(compute=ComputeConfig(dtype="bfloat16"))
    assert hidden(half, rows).dtype == jnp.bfloat16
    assert logits(half, rows).dtype == jnp.float32
    np.testing.assert_allclose(logits(half, rows), logits(new_model(), rows), atol=0.02)


def test_the_default_dtype_is_that_of_the_platform():
    expected = "float32" if jax.default_backend() == "cpu" else "bfloat16"
    assert resolve_dtype(ComputeConfig()) == expected
    assert resolve_dtype(ComputeConfig(dtype="bfloat16")) == "bfloat16"


def test_statistics_of_a_norm_are_float32(one_device):
    # 300**2 overflows float16, and 1 + 1/256 is 1 in bfloat16.
    norm = RMSNorm(MODEL)
    x = jnp.full((1, 1, MODEL.embed_dim), 300, jnp.float16)
    np.testing.assert_allclose(norm(x), 1.0, atol=1e-3)
    # By hand: the mean square of (3, 4, 0, ...) over 16 channels is 25 / 16.
    x = jnp.zeros((1, 1, MODEL.embed_dim)).at[0, 0, :2].set(jnp.array([3.0, 4.0]))
    np.testing.assert_allclose(norm(x)[0, 0, :2], [3 / 1.25, 4 / 1.25], rtol=1e-4)


def test_weights_begin_as_documented(one_device):
    config = dataclasses.replace(MODEL, num_layers=8, embed_dim=64, mlp_dim=128)
    _, params = init_params(config, FLOAT32, 3)
    _, others = init_params(config, FLOAT32, 4)
    assert not np.any(np.isclose(params.embed.table[...], others.embed.table[...], atol=1e-9))
    blocks = params["blocks"]
    for weights in (blocks.attention.query, blocks.mlp.gate, params["embed"].table):
        assert np.std(weights[...]) == pytest.approx(0.02, rel=0.02)
    for weights in (blocks.attention.out, blocks.mlp.down):
        assert np.std(weights[...]) == pytest.approx(0.02 / 4, rel=0.02)
    np.testing.assert_array_equal(blocks.mlp_norm.scale[...], 1.0)
    layers = np.asarray(blocks.mlp.gate[...])
    assert abs(np.corrcoef(layers[0].ravel(), layers[1].ravel())[0, 1]) < 0.05


def test_parameters_are_born_sharded(eight_devices):
    _, params = init_params(MODEL, FLOAT32, 0)
    _, abstract = abstract_params(MODEL, FLOAT32)
    fsdp = ("fsdp", "fsdp_line")
    specs = {
        "query": (params.blocks.attention.query, P("stage", fsdp, "tensor", None)),
        "out": (params.blocks.attention.out, P("stage", "tensor", None, fsdp)),
        "gate": (params.blocks.mlp.gate, P("stage", fsdp, "tensor")),
        "down": (params.blocks.mlp.down, P("stage", "tensor", fsdp)),
        "embed": (params.embed.table, P("tensor", fsdp)),
        "output": (params.output.table, P("tensor", fsdp)),
    }
    for param, spec in specs.values():
        array = param[...]
        assert array.sharding.spec == spec
        assert array.addressable_shards[0].data.size == array.size // 4
    for real, planned in zip(jax.tree.leaves(params), jax.tree.leaves(abstract), strict=True):
        assert real.shape == planned.shape
        assert real.sharding.is_equivalent_to(planned.sharding, real.ndim)


def test_no_device_ever_holds_a_whole_parameter_while_they_are_born():
    config = dataclasses.replace(MODEL, num_layers=1, embed_dim=64, mlp_dim=512)
    with layout(fsdp=8):
        graphdef, abstract = abstract_params(config, FLOAT32)
        shardings = jax.tree.map(lambda leaf: leaf.sharding, abstract)
        make = jit(lambda key: nnx.state(new_like(graphdef, config, key)), out_shardings=shardings)
        memory = make.lower(jax.random.key(0)).compile().memory_analysis()
    whole = 4 * count_params(config).total
    assert memory.output_size_in_bytes < whole / 7
    assert memory.temp_size_in_bytes < whole / 2


def new_like(graphdef, config, key):
    from llama_jax.model import Llama

    return Llama(config, FLOAT32, rngs=nnx.Rngs(params=key))


@pytest.mark.parametrize(
    ("change", "mesh", "complaint"),
    [
        (
            {},
            {"tensor": 4},
            r"model\.num_kv_heads=2 must be a multiple of mesh\.tensor=4, which splits it",
        ),
        (
            {"num_heads": 6, "num_kv_heads": 6},
            {"tensor": 4},
            r"model\.num_heads=6 must be a multiple of mesh\.tensor=4",
        ),
        ({"mlp_dim": 33}, {"tensor": 2}, r"model\.mlp_dim=33 must be .* mesh\.tensor=2"),
        ({"vocab_size": 65}, {"tensor": 2}, r"model\.vocab_size=65 must be .* mesh\.tensor=2"),
        ({"embed_dim": 12}, {"fsdp": 8}, r"model\.embed_dim=12 must be .* mesh\.fsdp=8"),
    ],
)
def test_splits_that_a_mesh_cannot_make_are_refused_by_name(change, mesh, complaint):
    with layout(**mesh), pytest.raises(ValueError, match=complaint):
        init_params(dataclasses.replace(MODEL, **change), FLOAT32, 0)
