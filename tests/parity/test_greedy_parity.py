"""Greedy text is the same here and in transformers where float32 can tell what comes next.

Two programs in float32 sum in another order. Where the two best tokens lie closer than that moves
their logits, either may be taken, and what follows is another text; how close they lie is said by a
forward pass in float64. Prompts are those that a rule names, whatever came of them.
"""

import dataclasses

import numpy as np
import pytest

from llama_jax.convert.hugging_face import export_hugging_face
from llama_jax.convert.origin import Origin
from llama_jax.convert.words import no_words
from llama_jax.infer.generate import generate
from llama_jax.infer.sampling import Sampling
from tests.model.test_trained_weights import BOS, CHECKPOINT, independent_logits, stories
from tests.parity.exported import (
    VARIANTS,
    folder,
    our_model,
    random_weights,
    read_ours,
    read_theirs,
    run_config,
)

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")
transformers = pytest.importorskip("transformers", reason="transformers is not installed")

pytestmark = [pytest.mark.parity, pytest.mark.slow, pytest.mark.usefixtures("one_device")]
__all__ = ["folder", "stories"]  # fixtures

NEW_TOKENS = 200
# Of the trained model's logits, which reach 20, either program is 1.2e-4 off at most; of those of
# the random ones 1e-5.
TRAINED_TIE, RANDOM_TIE = 5e-4, 5e-5
GREEDY = Sampling(temperature=0)


@pytest.fixture(autouse=True, scope="module")
def one_thread():
    """PyTorch's threads wait for one another at each of 200 small steps."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def ours_say(model, prompts, num_tokens=NEW_TOKENS):
    told = generate(model, prompts, max_new_tokens=num_tokens, sampling=GREEDY)
    return [completion.tokens for completion in told]


def theirs_say(model, prompts, num_tokens=NEW_TOKENS):
    """Their tokens of prompts of one length, and how far each is ahead of the second best."""
    ids = torch.tensor(prompts)
    told = model.generate(
        ids,
        attention_mask=torch.ones_like(ids),
        max_new_tokens=num_tokens,
        do_sample=False,
        output_logits=True,
        return_dict_in_generate=True,
    )
    best = torch.stack(told.logits, dim=1).topk(2).values
    return told.sequences[:, ids.shape[1] :].tolist(), (best[..., 0] - best[..., 1]).numpy()


def first_clear(exact, prompts, tie):
    """The first 20 prompts after which no choice in float64 is a near tie."""
    _, lead = theirs_say(exact, prompts)
    clear = [
        prompt for prompt, smallest in zip(prompts, lead.min(1), strict=True) if smallest > tie
    ]
    assert len(clear) >= 20, "the rule needs more prompts to choose from"
    return clear[:20]


@pytest.mark.parametrize("kind", VARIANTS)
def test_twenty_prompts_go_on_alike_for_200_tokens(kind, tmp_path):
    model = dataclasses.replace(VARIANTS[kind], max_seq_len=256)
    weights = random_weights(model)
    arguments = {"origin": Origin(step=1), "words": no_words()}
    export_hugging_face(weights, run_config(model), tmp_path / "out", **arguments)
    theirs, exact = (
        read_theirs(tmp_path / "out", dtype) for dtype in (torch.float32, torch.float64)
    )
    drawn = np.random.default_rng(0).integers(0, model.vocab_size, (40, 20)).tolist()
    prompts = first_clear(exact, drawn, RANDOM_TIE)
    ours = ours_say(our_model(model, weights), prompts)
    assert ours == theirs_say(theirs, prompts)[0] == theirs_say(exact, prompts)[0]
    assert len(set(map(tuple, ours))) == 20


@pytest.mark.skipif(not CHECKPOINT.exists(), reason=f"needs {CHECKPOINT}")
@pytest.mark.parametrize("length", [2, 60])
def test_a_trained_model_parts_from_theirs_at_near_ties_alone(folder, stories, length):
    theirs = read_theirs(folder / "float32", torch.float32)
    model = read_ours(folder / "run")
    begun = [[BOS, 3 + 10 * row] for row in range(20)]
    told = generate(model, begun, max_new_tokens=max(length - 2, 1), seeds=range(20))
    prompts = [(start + story.tokens)[:length] for start, story in zip(begun, told, strict=True)]
    told_by_them, _ = theirs_say(theirs, prompts)
    parted = 0
    for prompt, ours, other in zip(prompts, ours_say(model, prompts), told_by_them, strict=True):
        done = 0
        while ours[done:] != other:
            same = next(i for i, token in enumerate(other) if token != ours[done + i])
            before = prompt + ours[: done + same]
            scores = independent_logits(stories, before)[-1]
            chosen = [ours[done + same], other[same]]
            assert scores.max() - scores[chosen].min() < TRAINED_TIE, f"after {before}"
            # From here on the text is ours, and theirs is asked for the rest of it.
            done, parted = done + same + 1, parted + 1
            if done == NEW_TOKENS:
                break
            other = theirs_say(theirs, [prompt + ours[:done]], NEW_TOKENS - done)[0][0]
    assert parted < 0.01 * 20 * NEW_TOKENS
