"""A model trained with muP is an ordinary LLaMA: what is exported needs no constants beside it."""

import dataclasses

import jax
import numpy as np

from llama_jax.config import AdamW, CompleteP, Cosine, DataConfig, RunConfig, TrainConfig
from llama_jax.convert.hugging_face import export_hugging_face
from llama_jax.convert.origin import Origin
from llama_jax.convert.words import no_words
from llama_jax.train.parameterisation import begin, make_rules
from tests.model.tiny_model import FLOAT32, MODEL, new_params

PLAIN = RunConfig(
    name="tiny",
    model=MODEL,
    data=DataConfig(seq_len=32),
    train=TrainConfig(num_steps=10, batch_size=4),
    optimizer=AdamW(peak_lr=1e-3),
    schedule=Cosine(warmup_steps=2),
)
MUP = dataclasses.replace(
    PLAIN, parameterisation=CompleteP(base_embed_dim=4, base_head_dim=4, base_num_layers=1)
)


def test_the_constants_are_in_the_weights_and_nowhere_else(tmp_path, one_device):
    _, params = new_params(MODEL, FLOAT32)
    begun = begin(params, make_rules(MUP))
    # 16 wide over 4, 2 layers over 1.
    np.testing.assert_allclose(begun["final_norm"].scale[...], 0.25, rtol=1e-6)
    weights = {}
    for path, leaf in jax.tree.leaves_with_path(begun):
        names = [key.key for key in path if isinstance(key, jax.tree_util.DictKey)]
        weights[".".join(names)] = np.asarray(leaf)
    for config, name in ((PLAIN, "plain"), (MUP, "mup")):
        export_hugging_face(
            weights, config, tmp_path / name, origin=Origin(step=7), words=no_words()
        )
    for file in ("model.safetensors", "config.json", "generation_config.json"):
        assert (tmp_path / "mup" / file).read_bytes() == (tmp_path / "plain" / file).read_bytes()
