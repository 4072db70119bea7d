"""A real, trained LLaMA, against a forward pass that shares nothing with ours.

The file is `stories260K.bin` in llama2.c's first layout: seven int32 (dim, hidden, layers, heads,
kv heads, vocab, context), then float32 tensors. Its rotary planes are adjacent channels, as in
Meta's checkpoints; ours are halves of a head.
"""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from llama_jax.config import ModelConfig, PlainRope
from llama_jax.model import Llama, abstract_params, init_cache
from tests.model.tiny_model import FLOAT32, logits, pack

CHECKPOINT = Path(__file__).parents[3] / "shared/corpora/checkpoints/stories260K.bin"
BOS = 1
pytestmark = pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {CHECKPOINT}")


@dataclasses.dataclass(frozen=True)
class Stories:
    """The file's numbers, as they are; matrices are (out, in), stacked over layers."""

    config: ModelConfig
    embedding: np.ndarray
    attention_norm: np.ndarray
    wq: np.ndarray
    wk: np.ndarray
    wv: np.ndarray
    wo: np.ndarray
    mlp_norm: np.ndarray
    w1: np.ndarray
    w2: np.ndarray
    w3: np.ndarray
    final_norm: np.ndarray


@pytest.fixture(scope="module")
def stories() -> Stories:
    raw = CHECKPOINT.read_bytes()
    D, F, L, N, K, V, T = np.frombuffer(raw, "<i4", 7).tolist()
    H = D // N
    assert V > 0, "a negative vocabulary means an output table of its own"
    config = ModelConfig(
        num_layers=L,
        embed_dim=D,
        mlp_dim=F,
        num_heads=N,
        num_kv_heads=K,
        head_dim=H,
        vocab_size=V,
        max_seq_len=T,
        rope=PlainRope(theta=10_000.0),
        norm_eps=1e-5,
        tie_embeddings=True,
    )
    shapes = [(V, D), (L, D), (L, N * H, D), (L, K * H, D), (L, K * H, D), (L, D, N * H)]
    shapes += [(L, D), (L, F, D), (L, D, F), (L, F, D), (D,)]
    values, start = np.frombuffer(raw, "<f4", offset=28), 0
    tensors = []
    for shape in shapes:
        tensors.append(values[start : start + np.prod(shape)].reshape(shape))
        start += np.prod(shape)
    assert values.size == start + T * H, "what is left are the cosines and sines"
    return Stories(config, *tensors)


def independent_logits(stories: Stories, tokens: list[int]) -> np.ndarray:
    """All logits of one sequence in float64, with interleaved rotations and repeated keys."""
    c = stories.config
    H, G, T = c.head_dim, c.num_heads // c.num_kv_heads, len(tokens)

    def norm(x, scale):
        return x / np.sqrt(np.mean(x**2, axis=-1, keepdims=True) + c.norm_eps) * scale

    angles = np.arange(T)[:, None] * 10_000.0 ** (-np.arange(0, H, 2) / H)
    turn = np.exp(1j * angles)[:, None, :]

    def rotate(x):
        planes = (x[..., ::2] + 1j * x[..., 1::2]) * turn
        return np.stack([planes.real, planes.imag], axis=-1).reshape(x.shape)

    x = stories.embedding.astype(np.float64)[tokens]
    for i in range(c.num_layers):
        y = norm(x, stories.attention_norm[i])
        q = rotate((y @ stories.wq[i].T).reshape(T, -1, H))
        k = rotate((y @ stories.wk[i].T).reshape(T, -1, H)).repeat(G, axis=1)
        v = (y @ stories.wv[i].T).reshape(T, -1, H).repeat(G, axis=1)
        scores = np.einsum("tnh,snh->nts", q, k) / np.sqrt(H)
        scores = np.where(np.tri(T, dtype=bool), scores, -np.inf)
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        weights /= weights.sum(-1, keepdims=True)
        x = x + np.einsum("nts,snh->tnh", weights, v).reshape(T, -1) @ stories.wo[i].T
        y = norm(x, stories.mlp_norm[i])
        gate = y @ stories.w1[i].T
        x = x + (gate / (1 + np.exp(-gate)) * (y @ stories.w3[i].T)) @ stories.w2[i].T
    return norm(x, stories.final_norm) @ stories.embedding.T.astype(np.float64)


@pytest.fixture
def model(stories: Stories, one_device) -> Llama:
    c = stories.config
    L, D, N, K, H = c.num_layers, c.embed_dim, c.num_heads, c.num_kv_heads, c.head_dim

    def into_heads(w, heads):
        return w.reshape(L, heads, H, D).transpose(0, 3, 1, 2)

    halves = np.r_[0:H:2, 1:H:2]  # adjacent planes to halves of a head
    values = {
        "embed": {"table": stories.embedding},
        "blocks": {
            "attention_norm": {"scale": stories.attention_norm},
            "attention": {
                "query": into_heads(stories.wq, N)[..., halves],
                "key": into_heads(stories.wk, K)[..., halves],
                "value": into_heads(stories.wv, K),
                "out": stories.wo.reshape(L, D, N, H).transpose(0, 2, 3, 1),
            },
            "mlp_norm": {"scale": stories.mlp_norm},
            "mlp": {
                "gate": stories.w1.transpose(0, 2, 1),
                "up": stories.w3.transpose(0, 2, 1),
                "down": stories.w2.transpose(0, 2, 1),
            },
        },
        "final_norm": {"scale": stories.final_norm},
    }
    graphdef, params = abstract_params(c, FLOAT32)
    nnx.replace_by_pure_dict(params, jax.tree.map(jnp.asarray, values))
    return nnx.merge(graphdef, params)


def greedy(stories: Stories, tokens: list[int], steps: int) -> list[int]:
    tokens = list(tokens)
    for _ in range(steps):
        tokens.append(int(np.argmax(independent_logits(stories, tokens)[-1])))
    return tokens


def test_trained_logits_equal_an_independent_float64_forward(stories, model):
    tokens = greedy(stories, [BOS], 60)
    tokens += np.random.default_rng(0).integers(3, 512, 40).tolist()
    got = logits(model, pack([tokens], seq_len=len(tokens)))[0]
    np.testing.assert_allclose(got, independent_logits(stories, tokens), atol=1e-4)


def test_trained_weights_predict_their_own_text(stories, model):
    # What the model writes itself is likely to it; the same ids in another order are not.
    tokens = greedy(stories, [BOS], 60)
    shuffled = [BOS, *np.random.default_rng(0).permutation(tokens[1:]).tolist()]

    def nats_per_token(ids):
        scores = logits(model, pack([ids], seq_len=len(ids)))[0]
        log_p = jax.nn.log_softmax(scores[:-1])
        return -float(jnp.mean(jnp.take_along_axis(log_p, jnp.array(ids[1:])[:, None], axis=1)))

    assert nats_per_token(tokens) < 1.0
    assert nats_per_token(shuffled) > np.log(stories.config.vocab_size) - 1.0


def test_greedy_generation_through_the_cache_writes_the_same_story(stories, model):
    expected = greedy(stories, [BOS], 80)

    @jax.jit
    def step(model, tokens, positions, cache):
        scores, cache = model.decode(tokens, positions, cache)
        return jnp.argmax(scores[:, -1:], axis=-1), cache

    cache = init_cache(stories.config, 1, 81, jnp.dtype("float32"))
    tokens, written = jnp.array([[BOS]]), [BOS]
    for position in range(80):
        tokens, cache = step(model, tokens, jnp.array([[position]]), cache)
        written.append(int(tokens[0, 0]))
    assert written == expected
    assert len(set(written)) > 20
