"""The certificate of restarts is earned by real processes, and refused where bits differ."""

import json

import jax.numpy as jnp
import numpy as np
import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.doctor.restart import Check, main
from llama_jax.data.dataset import open_dataset
from llama_jax.recipe import from_json, list_recipes, load_recipe, to_json
from llama_jax.train.trial import fingerprints, reduced, write_data


@pytest.mark.parametrize("name", list_recipes())
def test_every_recipe_has_a_reduced_form_that_keeps_what_it_is(name, tmp_path):
    config = load_recipe(name)
    small = reduced(config, tmp_path / "data", num_steps=12, save_every=4)
    assert from_json(to_json(small)) == small
    assert small.model.tie_embeddings == config.model.tie_embeddings
    assert small.model.rope == config.model.rope and small.optimizer == config.optimizer
    assert type(small.schedule) is type(config.schedule)
    assert bool(small.train.batch_ramp) == bool(config.train.batch_ramp)
    assert (small.model.num_kv_heads < small.model.num_heads) == (
        config.model.num_kv_heads < config.model.num_heads
    )


def test_the_written_data_are_those_of_the_mixture(tmp_path):
    config = load_recipe("demo")
    write_data(tmp_path / "data", config)
    small = reduced(config, tmp_path / "data", num_steps=12, save_every=4)
    dataset = open_dataset(
        small.data, vocab_size=small.model.vocab_size, batch_size=small.train.batch_size
    )
    assert dataset.batch(0).inputs.shape == (8, 32) and len(dataset.sources) == 2


def test_one_flipped_bit_is_another_fingerprint(tmp_path):
    def save(name, **changes):
        params = changes.get("params", {"w": jnp.arange(6.0).reshape(2, 3)})
        state = {"params": params, "opt_state": {"mu": jnp.ones(3)}}
        with Checkpointer(tmp_path / name / "checkpoints") as checkpointer:
            checkpointer.save(3, state, {"step": 3, "token_order": changes.get("order", 7)})
        record = {"step": 1, "loss_nats_per_token": changes.get("loss", 2.5)}
        (tmp_path / name / "metrics.jsonl").write_text(json.dumps(record) + "\n")
        return fingerprints(tmp_path / name, 3)

    first = save("first")
    assert first == save("again") and len(set(first.values())) == 4
    flipped = np.arange(6, dtype=np.float32).reshape(2, 3)
    flipped.view(np.uint32)[1, 2] ^= 1
    other = save("flipped", params={"w": jnp.asarray(flipped)})
    assert {name for name in first if first[name] != other[name]} == {"parameters"}
    other = save("fed otherwise", order=8)
    assert {name for name in first if first[name] != other[name]} == {"token order"}


def test_a_check_says_what_differs():
    check = Check(
        name="killed",
        resumed_at=4,
        passed=False,
        bit_identical={"parameters": False, "losses": True},
        same_documents=True,
        largest_loss_difference=0.0,
    )
    assert str(check).startswith(
        "FAILED  killed, from update 4: parameters DIFFER, losses the same, documents the same, "
        "tokens DIFFER"
    )


@pytest.mark.long
def test_a_recipe_earns_its_certificate(capsys):
    assert main(["demo", "--json"]) == 0
    verdict = json.loads(capsys.readouterr().out)
    assert verdict["passed"] and len(verdict["checks"]) == 3
    killed, *others = verdict["checks"]
    assert set(killed["bit_identical"].values()) == {True} and killed["resumed_at"] == 3
    assert all(check["same_documents"] and check["resumed_at"] == 3 for check in others)
    assert all(check["same_token_order"] for check in verdict["checks"])
