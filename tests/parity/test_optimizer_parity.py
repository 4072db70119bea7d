"""Training goes on in PyTorch with the moments of an export, and comes back: the same losses."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config
from llama_jax.config import RunConfig
from llama_jax.convert.moments import LOADER, WRITER
from llama_jax.data.batch import Batch
from llama_jax.recipe import to_json
from llama_jax.train.schedule import make_schedule
from tests.parity.updates import GROUPED, NUM_STEPS, B, make_batches, run_config
from tests.train.tiny_run import start

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = pytest.mark.usefixtures("one_device")

LEAVES, RETURNS = 10, 15  # updates after which training goes to PyTorch, and comes back
IN_PYTORCH: dict[str, Any] = {}
exec(LOADER + WRITER, IN_PYTORCH)  # what the guide has people write


@pytest.mark.parametrize(
    "model",
    [GROUPED, dataclasses.replace(GROUPED, tie_embeddings=True)],
    ids=["grouped-query", "tied"],
)
def test_training_goes_on_in_pytorch_and_comes_back(tmp_path, model):
    config = run_config(model, 1)
    state, step = start(config)
    abstract = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), state)
    state, _ = train(step, state, config, 0, LEAVES)
    save_run(tmp_path / "run", config, state)
    _, ours = train(step, state, config, LEAVES, NUM_STEPS)

    convert("to-hf", tmp_path / "run", tmp_path / "hf", "--optimizer", "--without-tokenizer")
    theirs = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    adamw = IN_PYTORCH["load_adamw"](theirs, tmp_path / "hf")
    assert adamw.param_groups[0]["lr"] == learning_rates(config)[LEAVES]
    losses = train_in_pytorch(theirs, adamw, config, LEAVES, RETURNS)
    save_in_pytorch(tmp_path, theirs, adamw)
    losses += train_in_pytorch(theirs, adamw, config, RETURNS, NUM_STEPS)
    np.testing.assert_allclose(ours, losses, atol=1e-4, rtol=0)

    convert("from-hf", tmp_path / "tuned", tmp_path / "back", "--optimizer")
    assert read_config(tmp_path / "back") == config
    with Checkpointer(tmp_path / "back/checkpoints", read_only=True) as checkpointer:
        state, meta = checkpointer.restore(RETURNS, abstract)
    assert (meta["step"], meta["samples"]) == (RETURNS, B * RETURNS)
    _, back = train(step, state, config, RETURNS, NUM_STEPS)
    np.testing.assert_allclose(back, losses[RETURNS - LEAVES :], atol=1e-4, rtol=0)

    # The losses are those of these moments: without them they are others.
    bare = transformers.AutoModelForCausalLM.from_pretrained(tmp_path / "hf")
    adamw = IN_PYTORCH["load_adamw"](bare, tmp_path / "hf")
    adamw.state.clear()
    without = train_in_pytorch(bare, adamw, config, LEAVES, RETURNS)
    assert np.abs(np.subtract(without, losses[: RETURNS - LEAVES])).max() > 1e-2


def convert(*arguments: str | Path) -> None:
    assert main(["convert", *map(str, arguments)]) == 0


def learning_rates(config: RunConfig) -> list[float]:
    at = make_schedule(config.schedule, peak_lr=config.optimizer.peak_lr, num_steps=NUM_STEPS)
    return [at(step) for step in range(NUM_STEPS)]


def train(step, state, config: RunConfig, begin: int, end: int):
    losses = []
    batches = zip(make_batches(), learning_rates(config), strict=True)
    for batch, rate in list(batches)[begin:end]:
        # The step consumes its state; tests need some states twice.
        state = jax.tree.map(jnp.copy, state)
        state, metrics = step(state, jax.tree.map(jnp.asarray, batch), np.float32(rate))
        losses.append(float(metrics["loss_nats_per_token"]))
    return state, losses


def train_in_pytorch(model, adamw, config: RunConfig, begin: int, end: int) -> list[float]:
    losses = []
    batches = zip(make_batches(), learning_rates(config), strict=True)
    for batch, rate in list(batches)[begin:end]:
        for group in adamw.param_groups:
            group["lr"] = rate
        adamw.zero_grad()
        loss = nats_per_token(model, batch)
        loss.backward()
        torch.nn.utils.clip_grad_norm_(model.parameters(), config.optimizer.clip_norm)
        adamw.step()
        losses.append(loss.item())
    return losses


def nats_per_token(model, batch: Batch):
    inputs, targets, mask = (torch.from_numpy(x) for x in batch[:3])
    logits = model(input_ids=inputs.long()).logits
    nats = torch.nn.functional.cross_entropy(
        logits.flatten(0, 1), targets.long().flatten(), reduction="none"
    )
    return (nats * mask.flatten()).sum() / mask.sum()


def save_run(folder: Path, config: RunConfig, state) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(to_json(config))
    counters = {"samples": B * LEAVES, "first_sample": 0, "tokens": config.tokens_before(LEAVES)}
    with Checkpointer(folder / "checkpoints") as checkpointer:
        checkpointer.save(LEAVES, state, {"step": LEAVES} | counters)


def save_in_pytorch(folder: Path, model, adamw) -> None:
    """As the guide says: the model, its moments, and the config of the run that goes on."""
    said = json.loads((folder / "hf/optimizer/optimizer.json").read_text())
    model.save_pretrained(folder / "tuned")
    IN_PYTORCH["save_adamw"](adamw, model, folder / "tuned", said["run"])
    saved = (folder / "hf/training_config.json").read_text()
    (folder / "tuned/training_config.json").write_text(saved)
