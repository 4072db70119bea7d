"""muP and CompleteP: weights move as the papers say, and nothing but the training knows of it."""

import dataclasses
from concurrent.futures import Future

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx

from llama_jax.config import AdamW, CompleteP, Muon, MuP, RunConfig
from llama_jax.model import abstract_params
from llama_jax.ops.rope import rope_frequencies, rotation
from llama_jax.recipe import from_json, to_json
from llama_jax.train import program
from llama_jax.train.coordinates import growth, measure, resized
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.parameterisation import begin, make_rules
from tests.train.tiny_run import MODEL, counting_batch, on_mesh, start, tiny_config

BASE = CompleteP(base_embed_dim=16, base_head_dim=8, base_num_layers=2)
WIDE = dataclasses.replace(
    MODEL, num_layers=4, embed_dim=32, mlp_dim=64, num_heads=2, num_kv_heads=2, head_dim=16
)
M, L = 2.0, 2.0  # WIDE over BASE: width and depth
SCORES = (8 / 16) ** 0.5  # 1 / head_dim in place of 1 / sqrt(head_dim), alike at the base
HIDDEN = ("query", "key", "value", "out", "gate", "up", "down")


@pytest.fixture(autouse=True)
def quick_compiles():
    """Nearly all of these tests' time would be LLVM's."""
    jax.config.update("jax_disable_most_optimizations", True)
    yield
    jax.config.update("jax_disable_most_optimizations", False)


def names(path):
    return [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]


def by_name(params, rule):
    """A tree of `rule(module, name)`, in the structure of `params`."""
    return jax.tree_util.tree_map_with_path(lambda path, _: rule(*names(path)[-2:]), params)


def contained(module, name):
    """The constant of the forward pass that a weight of ours contains."""
    if module == "final_norm":
        return 1 / M
    return {"query": SCORES, "out": 1 / L, "down": 1 / L}.get(name, 1.0)


def papers_loss(graphdef, params, batch):
    """The decoder as the papers write it, with its constants in the forward pass."""
    params = jax.tree_util.tree_map_with_path(
        lambda path, w: SCORES * w if names(path)[-1] == "query" else w, params
    )
    model = nnx.merge(graphdef, params)
    turn = rotation(batch.positions, rope_frequencies(MODEL.rope, WIDE.head_dim))
    x = model.embed.table[...][batch.inputs]
    inner, blocks = nnx.split(model.blocks)
    for layer in range(WIDE.num_layers):
        block = nnx.merge(inner, jax.tree.map(lambda leaf, layer=layer: leaf[layer], blocks))
        x = x + block.attention(block.attention_norm(x), turn, batch.segments) / L
        x = x + block.mlp(block.mlp_norm(x)) / L
    logits = model.final_norm(x) @ model.output.table[...].T / M
    nats = optax.softmax_cross_entropy_with_integer_labels(logits, batch.targets)
    return jnp.sum(nats * batch.loss_mask) / jnp.sum(batch.loss_mask)


def papers_optimizer(params, optimizer: AdamW, learning_rate: float):
    """AdamW with a learning rate, an epsilon and a decay for each parameter."""

    def one(module, name):
        hidden, table = name in HIDDEN, name == "table"
        in_block = hidden or module in ("attention_norm", "mlp_norm")
        return optax.adamw(
            learning_rate / M if hidden else learning_rate,
            b1=optimizer.beta1,
            b2=optimizer.beta2,
            eps=optimizer.eps / (M * L if in_block else M),
            weight_decay=optimizer.weight_decay * (M if hidden else 1 if table else 0),
        )

    paths = {".".join(names(path)): names(path) for path, _ in jax.tree.leaves_with_path(params)}
    labels = jax.tree_util.tree_map_with_path(lambda path, _: ".".join(names(path)), params)
    rules = optax.partition({label: one(*path[-2:]) for label, path in paths.items()}, labels)
    return optax.chain(optax.clip_by_global_norm(optimizer.clip_norm), rules)


def test_three_updates_are_those_of_the_papers(one_device):
    optimizer = AdamW(peak_lr=1.0, eps=1e-3, clip_norm=0.3)
    config = tiny_config(model=WIDE, optimizer=optimizer, parameterisation=BASE)
    batches = [on_mesh(counting_batch(seed), one_device) for seed in range(3)]
    state, step = start(config)
    graphdef, _ = abstract_params(WIDE, config.compute)
    constants = by_name(state.params, contained)
    theirs = jax.tree.map(lambda w, c: w / c, state.params, constants)
    rule = papers_optimizer(theirs, optimizer, 0.01)
    moments = rule.init(theirs)

    @jax.jit
    def update(theirs, moments, batch):
        loss, grads = jax.value_and_grad(lambda p: papers_loss(graphdef, p, batch))(theirs)
        updates, moments = rule.update(grads, moments, theirs)
        return optax.apply_updates(theirs, updates), moments, loss

    for batch in batches:
        theirs, moments, loss = update(theirs, moments, batch)
        state, metrics = step(state, batch, np.float32(0.01))
        np.testing.assert_allclose(metrics["loss_nats_per_token"], loss, rtol=1e-5)
    jax.tree.map(
        lambda ours, w, c: np.testing.assert_allclose(ours, c * w, atol=2e-5),
        state.params,
        theirs,
        constants,
    )


@pytest.mark.parametrize("parameterisation", [BASE, MuP(base_embed_dim=16, base_head_dim=8)])
def test_the_base_trains_as_if_there_were_none(one_device, parameterisation):
    plain, based = tiny_config(), tiny_config(parameterisation=parameterisation)
    batch = on_mesh(counting_batch(0), one_device)
    ends = []
    for config in (plain, based):
        state, step = start(config)
        params = begin(state.params, make_rules(config))
        state, _ = step(dataclasses.replace(state, params=params), batch, np.float32(0.01))
        ends.append(state)
    jax.tree.map(np.testing.assert_array_equal, *(nnx.to_pure_dict(s.params) for s in ends))


def test_weights_begin_narrower_in_wide_models(one_device):
    ones = jax.tree.map(
        lambda leaf: jnp.ones(leaf.shape), abstract_params(WIDE, tiny_config().compute)[1]
    )
    first = begin(ones, make_rules(tiny_config(model=WIDE, parameterisation=BASE)))
    blocks = first["blocks"]
    np.testing.assert_allclose(blocks.mlp.gate[...], M**-0.5, rtol=1e-6)
    np.testing.assert_allclose(blocks.attention.query[...], SCORES * M**-0.5, rtol=1e-6)
    # Without one they begin at 1 / sqrt(2 * depth): the base's depth counts, then the constant.
    np.testing.assert_allclose(blocks.mlp.down[...], L**0.5 * M**-0.5 / L, rtol=1e-6)
    np.testing.assert_array_equal(first["embed"].table[...], 1.0)
    np.testing.assert_array_equal(first["output"].table[...], 1.0)
    np.testing.assert_array_equal(blocks.mlp_norm.scale[...], 1.0)
    np.testing.assert_allclose(first["final_norm"].scale[...], 1 / M, rtol=1e-6)


def test_mup_leaves_depth_alone():
    mup = MuP(base_embed_dim=16, base_head_dim=8)
    shallow, deep = (
        make_rules(
            tiny_config(model=dataclasses.replace(MODEL, num_layers=n), parameterisation=mup)
        )
        for n in (2, 20)
    )
    assert shallow == deep


@pytest.fixture
def last_coordinates(one_device, monkeypatch):
    """Magnitudes at the end of a short run whose program is compiled quickly."""

    def of(config: RunConfig) -> list[float]:
        compiled: Future = Future()
        compiled.set_result(start(config)[1])
        monkeypatch.setattr(program, "init_params", lambda *_: (None, start(config)[0].params))
        short = program.Program(
            config=config,
            graphdef=abstract_params(config.model, config.compute)[0],
            optimizer=make_optimizer(config.optimizer, make_rules(config)),
            abstract=start(config)[0],
            steps={config.train.batch_size: compiled},
        )
        batches = [counting_batch(seed) for seed in range(config.train.num_steps)]
        end = measure(short, [on_mesh(batch, one_device) for batch in batches])[-1]
        return [*end.streams, end.logits]

    return of


def test_activations_grow_with_width_without_mup_and_stay_with_it(last_coordinates):
    narrow, wide = (resized(MODEL, embed_dim=width, num_layers=2) for width in (32, 256))
    mup = MuP(base_embed_dim=32, base_head_dim=8)
    plain = tiny_config(optimizer=AdamW(peak_lr=0.01, eps=1e-8), train__num_steps=6)
    base = last_coordinates(dataclasses.replace(plain, model=narrow))
    exponents = {}
    for parameterisation in (None, mup):
        config = dataclasses.replace(plain, model=wide, parameterisation=parameterisation)
        pairs = zip(base, last_coordinates(config), strict=True)
        exponents[parameterisation] = [growth((32, 256), pair) for pair in pairs]
    # The embedding, the stream after each block, the logits. Up to a width of 512, measured: 0.0,
    # 2.1, 2.2 and 0.7 without, between 0.0 and -0.2 with it.
    assert min(exponents[None][1:]) > 0.45
    assert max(map(abs, exponents[mup])) < 0.35


def test_sizes_that_a_width_cannot_have_are_refused():
    with pytest.raises(ValueError, match=r"would make model\.num_kv_heads 0\.5 in place of 2"):
        resized(MODEL, embed_dim=4, num_layers=2)


def test_muon_is_refused_by_name():
    with pytest.raises(
        ValueError, match=r"parameterisation=CompleteP has rules for .*, not .*Muon"
    ):
        tiny_config(parameterisation=BASE, optimizer=Muon(peak_lr=1e-3))


def test_a_saved_config_keeps_its_parameterisation():
    config = tiny_config(parameterisation=BASE)
    assert from_json(to_json(config)) == config
    assert from_json(to_json(tiny_config())).parameterisation is None
