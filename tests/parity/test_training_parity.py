"""Twenty updates on the same batches: the losses of transformers with PyTorch's AdamW."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.checkpoint.names import named_arrays
from llama_jax.config import Llama3Rope, RunConfig
from llama_jax.convert.mapping import tensors_of, to_theirs
from llama_jax.model import abstract_params
from llama_jax.train.optimizer import make_optimizer
from llama_jax.train.schedule import make_schedule
from llama_jax.train.state import abstract_state, init_state
from llama_jax.train.step import make_train_step
from tests.parity.updates import (
    GROUPED,
    NUM_STEPS,
    T,
    make_batches,
    rope_parameters,
    run_config,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.usefixtures("one_device")


def our_losses(config: RunConfig, params, graphdef, rates: list[float]) -> list[float]:
    optimizer = make_optimizer(config.optimizer)
    state = init_state(params, optimizer)
    step = make_train_step(graphdef, config, abstract_state(params, optimizer))
    losses = []
    for batch, rate in zip(make_batches(), rates, strict=True):
        state, metrics = step(state, jax.tree.map(jnp.asarray, batch), np.float32(rate))
        losses.append(float(metrics["loss_nats_per_token"]))
    return losses


def their_losses(config: RunConfig, weights, rates: list[float]) -> tuple[list[float], list[float]]:
    """Losses, and norms of gradients before clipping."""
    model, rule = config.model, config.optimizer
    theirs = transformers.LlamaForCausalLM(
        transformers.LlamaConfig(
            num_hidden_layers=model.num_layers,
            hidden_size=model.embed_dim,
            intermediate_size=model.mlp_dim,
            num_attention_heads=model.num_heads,
            num_key_value_heads=model.num_kv_heads,
            head_dim=model.head_dim,
            vocab_size=model.vocab_size,
            max_position_embeddings=T,
            rms_norm_eps=model.norm_eps,
            rope_parameters=rope_parameters(model),
            tie_word_embeddings=model.tie_embeddings,
        )
    ).float()
    tensors = {}
    for tensor in tensors_of(model):
        ours = weights[tensor.pair.ours]
        ours = ours if tensor.layer < 0 else ours[tensor.layer]
        tensors[tensor.name] = torch.from_numpy(to_theirs(tensor, ours).copy())
    missing = theirs.load_state_dict(tensors, strict=False).missing_keys
    assert missing == (["lm_head.weight"] if model.tie_embeddings else [])
    norms = [p for name, p in theirs.named_parameters() if "norm" in name]
    matrices = [p for name, p in theirs.named_parameters() if "norm" not in name]
    optimizer = torch.optim.AdamW(
        [{"params": matrices}, {"params": norms, "weight_decay": 0.0}],
        betas=(rule.beta1, rule.beta2),
        eps=rule.eps,
        weight_decay=rule.weight_decay,
    )
    losses, grad_norms = [], []
    for batch, rate in zip(make_batches(), rates, strict=True):
        inputs, targets, mask = (torch.from_numpy(x) for x in batch[:3])
        logits = theirs(input_ids=inputs.long()).logits
        nats = torch.nn.functional.cross_entropy(
            logits.flatten(0, 1), targets.long().flatten(), reduction="none"
        )
        loss = (nats * mask.flatten()).sum() / mask.sum()
        optimizer.zero_grad()
        loss.backward()
        grad_norms.append(
            float(torch.nn.utils.clip_grad_norm_(theirs.parameters(), rule.clip_norm))
        )
        for group in optimizer.param_groups:
            group["lr"] = rate
        optimizer.step()
        losses.append(loss.item())
    return losses, grad_norms


@pytest.mark.parametrize(
    ("model", "accumulation_steps"),
    [
        pytest.param(GROUPED, 1, id="grouped-query"),
        pytest.param(GROUPED, 2, id="in two pieces"),
        pytest.param(dataclasses.replace(GROUPED, num_kv_heads=8), 1, id="multi-head"),
        pytest.param(dataclasses.replace(GROUPED, tie_embeddings=True), 1, id="tied"),
        # Of the four wavelengths one is left as it was, one stretched in part, two in full.
        pytest.param(
            dataclasses.replace(GROUPED, rope=Llama3Rope(theta=100.0, original_seq_len=32)),
            1,
            id="llama3 rope",
        ),
    ],
)
def test_twenty_updates_give_the_same_losses(model, accumulation_steps):
    config = run_config(model, accumulation_steps)
    graphdef, params = abstract_params(model, config.compute)
    optimizer = make_optimizer(config.optimizer)
    rng = np.random.default_rng(1)

    def fill(path, leaf):
        values = rng.normal(0, 0.05, leaf.shape) + ("scale" in jax.tree_util.keystr(path))
        return jax.device_put(values.astype(np.float32), leaf.sharding)

    params = jax.tree.map_with_path(fill, abstract_state(params, optimizer).params)
    weights = {name: np.asarray(array) for name, array in named_arrays(params).items()}
    at = make_schedule(config.schedule, peak_lr=config.optimizer.peak_lr, num_steps=NUM_STEPS)
    rates = [at(step) for step in range(NUM_STEPS)]
    theirs, grad_norms = their_losses(config, weights, rates)
    ours = our_losses(config, params, graphdef, rates)
    np.testing.assert_allclose(ours, theirs, atol=1e-4, rtol=0)
    assert theirs[-1] < theirs[0] - 0.5
    assert max(grad_norms) > config.optimizer.clip_norm
