"""Agreement with Hugging Face transformers on the same random weights, in float32."""

import dataclasses

import jax
import numpy as np
import pytest
from flax import nnx

from llama_jax.config import LinearRope, Llama3Rope, ModelConfig
from llama_jax.ops.cross_entropy import cross_entropy
from tests.model.tiny_model import logits, new_params, pack
from tests.parity.updates import rope_parameters

torch = pytest.importorskip("torch", reason="needs the extra `parity`: PyTorch")
transformers = pytest.importorskip("transformers", reason="needs the extra `parity`: transformers")

BASE = ModelConfig(
    num_layers=3,
    embed_dim=64,
    mlp_dim=160,
    num_heads=8,
    num_kv_heads=8,
    head_dim=8,
    vocab_size=256,
    max_seq_len=128,
    norm_eps=1e-5,
)
VARIANTS = {
    "multi-head": BASE,
    "grouped-query": dataclasses.replace(BASE, num_kv_heads=2, norm_eps=1e-6),
    "llama3 rope": dataclasses.replace(
        BASE, num_kv_heads=4, rope=Llama3Rope(theta=5e5, original_seq_len=32)
    ),
    "linear rope": dataclasses.replace(BASE, num_kv_heads=4, rope=LinearRope(factor=4.0)),
    "tied": dataclasses.replace(BASE, num_kv_heads=1, tie_embeddings=True),
    "wide heads": dataclasses.replace(BASE, num_heads=4, num_kv_heads=2, head_dim=32),
}
TOKENS = np.random.default_rng(0).integers(0, BASE.vocab_size, (2, 96))
# Larger than at initialisation: attention is sharp, norms matter, and errors show.
GAIN = 5.0


def reference(config: ModelConfig):
    """An untrained LlamaForCausalLM of this shape."""
    return transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            hidden_size=config.embed_dim,
            intermediate_size=config.mlp_dim,
            num_hidden_layers=config.num_layers,
            num_attention_heads=config.num_heads,
            num_key_value_heads=config.num_kv_heads,
            head_dim=config.head_dim,
            vocab_size=config.vocab_size,
            max_position_embeddings=config.max_seq_len,
            rms_norm_eps=config.norm_eps,
            rope_parameters=rope_parameters(config),
            tie_word_embeddings=config.tie_embeddings,
            attn_implementation="eager",
        )
    ).float()


def in_their_layout(config: ModelConfig, params: nnx.State) -> dict[str, np.ndarray]:
    """Our parameters (or their gradients) under the names and shapes of transformers."""
    D = config.embed_dim
    blocks = params["blocks"]
    theirs = {
        "model.embed_tokens.weight": params["embed"]["table"],
        "model.norm.weight": params["final_norm"]["scale"],
    }
    if not config.tie_embeddings:
        theirs["lm_head.weight"] = params["output"]["table"]
    for i in range(config.num_layers):
        attention, mlp = blocks["attention"], blocks["mlp"]
        layer = {
            "input_layernorm": blocks["attention_norm"]["scale"][i],
            "post_attention_layernorm": blocks["mlp_norm"]["scale"][i],
            "self_attn.q_proj": attention["query"][i].reshape(D, -1).T,
            "self_attn.k_proj": attention["key"][i].reshape(D, -1).T,
            "self_attn.v_proj": attention["value"][i].reshape(D, -1).T,
            "self_attn.o_proj": attention["out"][i].reshape(-1, D).T,
            "mlp.gate_proj": mlp["gate"][i].T,
            "mlp.up_proj": mlp["up"][i].T,
            "mlp.down_proj": mlp["down"][i].T,
        }
        theirs |= {f"model.layers.{i}.{name}.weight": value for name, value in layer.items()}
    return {name: np.asarray(value) for name, value in theirs.items()}


@pytest.fixture(params=VARIANTS, scope="module")
def pair(request):
    """One variant's config, our parameters, and a reference that holds the same ones."""
    from tests.model.tiny_model import layout

    config = VARIANTS[request.param]
    with layout(fsdp=1):
        graphdef, params = new_params(config)
        scale = np.random.default_rng(1)
        params = jax.tree.map(
            lambda x: (
                x
                * (
                    GAIN
                    if x.ndim > 2 or 256 in x.shape
                    else scale.uniform(0.5, 1.5, x.shape).astype("f4")
                )
            ),
            params,
        )
    model = reference(config)
    weights = in_their_layout(config, nnx.to_pure_dict(params))
    result = model.load_state_dict(
        {name: torch.tensor(value) for name, value in weights.items()}, strict=False
    )
    assert not result.unexpected_keys
    assert set(result.missing_keys) <= ({"lm_head.weight"} if config.tie_embeddings else set())
    model.tie_weights()
    return config, graphdef, params, model


def test_logits_equal_those_of_transformers(pair, one_device):
    _, graphdef, params, model = pair
    rows = pack(*([row.tolist()] for row in TOKENS), seq_len=TOKENS.shape[1])
    ours = np.asarray(logits(nnx.merge(graphdef, params), rows))
    with torch.no_grad():
        theirs = model(torch.tensor(TOKENS)).logits.numpy()
    assert np.std(theirs) > 0.5, "logits near zero would agree whatever the model does"
    np.testing.assert_allclose(ours, theirs, atol=1e-4)


def test_loss_and_gradients_equal_those_of_transformers(pair, one_device):
    config, graphdef, params, model = pair
    rows = pack(*([row.tolist()] for row in TOKENS), seq_len=TOKENS.shape[1])
    targets = np.roll(rows.tokens, -1, axis=1)
    mask = np.ones(TOKENS.shape, np.float32)
    mask[:, -1] = 0

    def loss(params: nnx.State) -> jax.Array:
        model = nnx.merge(graphdef, params)
        sums = cross_entropy(model.hidden(*rows), model.output_table, targets, mask, num_chunks=4)
        return sums.nats / sums.weight

    ours, gradients = jax.jit(jax.value_and_grad(loss))(params)
    model.zero_grad()
    ids = torch.tensor(TOKENS)
    theirs = model(ids, labels=ids).loss
    theirs.backward()
    np.testing.assert_allclose(ours, theirs.item(), atol=1e-4)
    expected = {name: p.grad.numpy() for name, p in model.named_parameters()}
    got = in_their_layout(config, nnx.to_pure_dict(gradients))
    assert expected.keys() == got.keys()
    for name, gradient in expected.items():
        assert np.abs(gradient).max() > 1e-4, f"{name} has hardly a gradient to compare"
        np.testing.assert_allclose(got[name], gradient, atol=1e-4, err_msg=name)


def test_packed_documents_equal_documents_alone_in_transformers(pair, one_device):
    _, graphdef, params, model = pair
    documents = [TOKENS[0, :20].tolist(), TOKENS[1, :41].tolist(), TOKENS[0, 50:73].tolist()]
    packed = np.asarray(logits(nnx.merge(graphdef, params), pack(documents, seq_len=96)))[0]
    start = 0
    for document in documents:
        with torch.no_grad():
            theirs = model(torch.tensor([document])).logits[0].numpy()
        np.testing.assert_allclose(packed[start : start + len(document)], theirs, atol=1e-4)
        start += len(document)
