"""Update rules: who decays, what is clipped, and what Muon makes of a stacked projection."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from llama_jax.config import AdamW, Muon
from llama_jax.train.optimizer import decay_mask, make_optimizer

L, D, N, H, F, V = 2, 12, 3, 8, 20, 16
SHAPES = {
    "embed": {"table": (V, D)},
    "blocks": {
        "attention_norm": {"scale": (L, D)},
        "attention": {"query": (L, D, N, H), "key": (L, D, 1, H), "out": (L, N, H, D)},
        "mlp": {"gate": (L, D, F), "up": (L, D, F), "down": (L, F, D)},
    },
    "final_norm": {"scale": (D,)},
}


def normal_tree(seed):
    leaves, structure = jax.tree.flatten(SHAPES, is_leaf=lambda x: isinstance(x, tuple))
    rng = np.random.default_rng(seed)
    arrays = [jnp.asarray(rng.normal(size=shape), jnp.float32) for shape in leaves]
    return jax.tree.unflatten(structure, arrays)


def first_update(config, grads, params):
    rule = make_optimizer(config)
    return jax.jit(lambda g, p: rule.update(g, rule.init(p), p)[0])(grads, params)


def test_matrices_and_tables_decay_and_norms_never_do():
    mask = decay_mask(normal_tree(0))
    assert mask["embed"]["table"] and mask["blocks"]["mlp"]["down"]
    assert mask["blocks"]["attention"]["query"]
    assert not mask["blocks"]["attention_norm"]["scale"] and not mask["final_norm"]["scale"]


@pytest.mark.parametrize("rule", [AdamW, Muon])
def test_decay_adds_its_share_of_a_matrix_and_nothing_to_a_norm(rule):
    params, grads = normal_tree(0), normal_tree(1)
    with_decay = first_update(rule(peak_lr=1.0, weight_decay=0.1), grads, params)
    without = first_update(rule(peak_lr=1.0, weight_decay=0.0), grads, params)
    added = jax.tree.map(jnp.subtract, with_decay, without)
    expected = jax.tree.map(lambda p, m: 0.1 * m * p, params, decay_mask(params))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), added, expected)


def test_adamw_is_its_formula_after_clipping():
    params, grads = normal_tree(0), normal_tree(1)
    config = AdamW(peak_lr=1.0, eps=1e-3, weight_decay=0.0, clip_norm=0.5)
    scale = 0.5 / optax.tree.norm(grads)
    update = first_update(config, grads, params)["blocks"]["mlp"]["up"]
    clipped = scale * grads["blocks"]["mlp"]["up"]
    # After one step the corrected moments are g and g**2.
    np.testing.assert_allclose(update, clipped / (jnp.abs(clipped) + 1e-3), rtol=1e-5)


def test_a_small_gradient_is_not_clipped():
    grads = jax.tree.map(lambda g: 1e-4 * g, normal_tree(1))
    config = AdamW(peak_lr=1.0, eps=1e-3, weight_decay=0.0, clip_norm=0.5)
    update = first_update(config, grads, normal_tree(0))["final_norm"]["scale"]
    g = grads["final_norm"]["scale"]
    np.testing.assert_allclose(update, g / (jnp.abs(g) + 1e-3), rtol=1e-5)


@pytest.mark.parametrize(
    ("place", "matrix"),
    [
        (("attention", "query"), (D, N * H)),
        (("attention", "key"), (D, H)),
        (("attention", "out"), (N * H, D)),
        (("mlp", "down"), (F, D)),
    ],
)
def test_muon_orthogonalises_each_layer_as_one_matrix(place, matrix):
    grads = normal_tree(1)
    # Layers of very different size: orthogonalised together, the small one would vanish.
    grads = jax.tree.map(lambda g: g.at[0].multiply(1e-2), grads)
    update = first_update(Muon(peak_lr=1.0, weight_decay=0.0), grads, normal_tree(0))
    rows, columns = matrix
    for layer in update["blocks"][place[0]][place[1]].reshape(L, rows, columns):
        singular = np.linalg.svd(layer / (0.2 * max(rows, columns) ** 0.5), compute_uv=False)
        assert singular.min() > 0.5 and singular.max() < 1.5


def test_muon_leaves_tables_and_norms_to_adam():
    params, grads = normal_tree(0), normal_tree(1)
    constants = {"peak_lr": 1.0, "eps": 1e-8, "beta1": 0.8, "beta2": 0.9}
    muon = first_update(Muon(**constants), grads, params)
    adam = first_update(AdamW(**constants), grads, params)
    for update, expected in [
        (muon["embed"]["table"], adam["embed"]["table"]),
        (muon["final_norm"]["scale"], adam["final_norm"]["scale"]),
        (muon["blocks"]["attention_norm"]["scale"], adam["blocks"]["attention_norm"]["scale"]),
    ]:
        np.testing.assert_allclose(update, expected, rtol=1e-6)


def test_updates_of_both_rules_have_about_the_same_size():
    params, grads = normal_tree(0), normal_tree(1)
    muon = first_update(Muon(peak_lr=1.0, weight_decay=0.0), grads, params)
    size = float(jnp.sqrt(jnp.mean(muon["blocks"]["mlp"]["up"] ** 2)))
    # The paper measures 0.2 to 0.4 for AdamW in the middle of training.
    assert 0.1 < size < 0.4


def test_a_parameter_of_no_known_kind_is_not_guessed():
    with pytest.raises(AssertionError, match="must be listed"):
        decay_mask({"blocks": {"attention": {"query_bias": jnp.zeros(3)}}})
