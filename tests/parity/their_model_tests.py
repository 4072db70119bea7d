"""transformers' own tests of a model, for one whose weights we exported.

It runs in a process of its own, as a module of the package that their source distribution's tests
are made into (`test_their_tests.py`). SAVED_MODEL names the exported folder.
"""

import os
import unittest
from pathlib import Path

import torch
import transformers
from safetensors.torch import load_file

from .test_modeling_common import ModelTesterMixin, ids_tensor

FOLDER = Path(os.environ["SAVED_MODEL"])
SAVED = {name: x for file in FOLDER.glob("*.safetensors") for name, x in load_file(file).items()}


def begin(model, prefix=""):
    """Gives a model the saved weights, where a test asked for one of their sizes."""
    mine = model.state_dict()
    saved = {name.removeprefix(prefix): x for name, x in SAVED.items() if name.startswith(prefix)}
    alike = all(name in mine and mine[name].shape == x.shape for name, x in saved.items())
    if alike and not any(x.is_meta for x in mine.values()):
        model.load_state_dict(saved, strict=False)


# Their tests look up by its name what a class computes.
class LlamaForCausalLM(transformers.LlamaForCausalLM):
    def __init__(self, config):
        super().__init__(config)
        begin(self)


class LlamaModel(transformers.LlamaModel):
    def __init__(self, config):
        super().__init__(config)
        begin(self, "model.")


class Tester:
    """What their tests ask of a model: its config and a batch."""

    batch_size, seq_length, is_training = 3, 7, True

    def __init__(self):
        config = self.get_config()
        self.hidden_size, self.vocab_size = config.hidden_size, config.vocab_size
        self.num_hidden_layers = config.num_hidden_layers
        self.num_attention_heads = config.num_attention_heads

    def get_config(self):
        return transformers.AutoConfig.from_pretrained(FOLDER)

    def prepare_config_and_inputs_for_common(self):
        config = self.get_config()
        ids = ids_tensor([self.batch_size, self.seq_length], config.vocab_size)
        return config, {"input_ids": ids, "attention_mask": torch.ones_like(ids)}

    prepare_config_and_inputs = prepare_config_and_inputs_for_common


class TheirTests(ModelTesterMixin, unittest.TestCase):
    all_model_classes = (LlamaModel, LlamaForCausalLM)

    def setUp(self):
        self.model_tester = Tester()

    @unittest.skip("the source distribution leaves out the tests of generation")
    def test_generation_tester_mixin_inheritance(self): ...

    def test_the_weights_are_the_saved_ones(self):
        config = self.model_tester.get_config()
        mine = LlamaForCausalLM(config).state_dict()
        assert mine.keys() - SAVED.keys() <= {"lm_head.weight"}
        assert all(torch.equal(mine[name], x) for name, x in SAVED.items())
        theirs = LlamaModel(config).state_dict()
        assert all(torch.equal(theirs[name], mine[f"model.{name}"]) for name in theirs)
