"""Logits are compared layer by layer; where float32 cannot tell, float64 judges both programs."""

import json

import numpy as np
import pytest

from llama_jax.convert.agreement import compare_logits, rows_of
from llama_jax.convert.exact_program import ExactProgram
from llama_jax.convert.stored import array_pieces
from llama_jax.convert.weights import Weights
from tests.convert.hf_folder import FAMILIES, TINY


@pytest.fixture
def weights(random_params, exported):
    """A function from a model's config to weights whose logits differ by units."""

    def make(model) -> Weights:
        tensors = exported(model, random_params(model))
        for name, value in tensors.items():
            if value.ndim == 2:
                tensors[name] = value * np.float32(model.embed_dim**-0.5)
        dtypes = dict.fromkeys(tensors, "float32")

        def read(name):
            return array_pieces(tensors[name], "float32", name)

        return Weights(model=model, dtypes=dtypes, read=read)

    return make


def some_rows(model):
    return rows_of(model, np.random.default_rng(0).integers(0, model.vocab_size, 128))


@pytest.mark.parametrize("model", FAMILIES.values(), ids=FAMILIES.keys())
def test_every_family_agrees_with_a_program_that_shares_no_line(model, weights):
    made, rows, calls = weights(model), some_rows(model), []
    found = compare_logits(made, ExactProgram(made, np.float64), rows, lambda: calls.append(1))
    assert found["agrees"]
    assert found["max_abs_logit_difference"] < 1e-4
    assert found["largest_logit"] > 1
    assert (found["float64"], found["first_layer_that_differs"]) == (None, None)
    assert len(calls) == len(rows) * (model.num_layers + 1)


class Wrong(ExactProgram):
    """A program that is off in one layer, or in its logits."""

    def __init__(self, weights, place, factor):
        super().__init__(weights, np.float32)
        self.place, self.factor = place, np.float32(factor)

    def open_layer(self, index):
        layer = super().open_layer(index)
        return (lambda x: self.factor * layer(x)) if index == self.place else layer

    def open_output(self):
        output = super().open_output()
        return (lambda x: self.factor * output(x)) if self.place == "logits" else output


@pytest.mark.parametrize(
    ("place", "factor", "name"),
    [
        (0, 1.01, "model.layers.0"),
        (1, 1.001, "model.layers.1"),
        ("logits", 1.0001, "lm_head"),
        ("logits", np.nan, "lm_head"),
        (1, np.inf, "model.layers.1"),
    ],
)
@pytest.mark.filterwarnings("ignore:invalid value", "ignore:overflow")
def test_what_differs_is_named(place, factor, name, weights):
    made = weights(TINY)
    found = compare_logits(made, Wrong(made, place, factor), some_rows(TINY))
    assert found["agrees"] is False
    assert found["first_layer_that_differs"] == name
    json.dumps(found)


def test_float64_excuses_what_float32_does_and_no_more(weights):
    # Embeddings of thousands: the first norms take them away, and every sum rounds much.
    made = weights(TINY)

    def read(name):
        values = made.array(name, (TINY.vocab_size, TINY.embed_dim)) if "embed" in name else None
        return made.read(name) if values is None else array_pieces(1e4 * values, "float32", name)

    large = Weights(model=TINY, dtypes=made.dtypes, read=read)

    class Large(ExactProgram):
        def open_output(self):
            output = super().open_output()
            return lambda x: 300 * output(x)

    rows = some_rows(TINY)
    found = compare_logits(large, ExactProgram(large, np.float32), rows)
    assert found["agrees"]
    judged = compare_logits(large, Large(large, np.float32), rows)
    assert not judged["agrees"]
    assert judged["float64"]["ours"] <= judged["float64"]["allowed"] < judged["float64"]["theirs"]


def test_rows_of_a_table_are_found_in_pieces_that_cut_them(weights):
    made = weights(TINY)
    name, shape = "model.embed_tokens.weight", (TINY.vocab_size, TINY.embed_dim)

    def read(name):
        data = b"".join(map(bytes, made.read(name)))
        return (memoryview(data[start : start + 100]) for start in range(0, len(data), 100))

    cut = Weights(model=TINY, dtypes=made.dtypes, read=read)
    ids = np.array([[0, 69, 3], [3, 3, 68]])
    np.testing.assert_array_equal(cut.rows(name, ids), made.array(name, shape)[ids])
