"""Generation against the model's own uncached forward, whatever its weights are."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from llama_jax.config import ComputeConfig, ModelConfig
from llama_jax.infer import generate as generate_module
from llama_jax.infer.generate import bucket, generate, in_compute_dtype
from llama_jax.infer.sampling import Sampling
from llama_jax.model.llama import Llama, init_cache
from tests.infer.saved_run import random_params

CONFIG = ModelConfig(
    num_layers=2,
    embed_dim=32,
    mlp_dim=48,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=61,
    max_seq_len=96,
)
GREEDY = Sampling(temperature=0)
MANY = 50  # rows of one compiled program that several tests share
RNG = np.random.default_rng(0)
PROMPTS = [RNG.integers(0, 61, length).tolist() for length in (5, 1, 40, 17, 2)]

pytestmark = pytest.mark.usefixtures("one_device")


@functools.cache
def parameters():
    return random_params(CONFIG, ComputeConfig(dtype="float32"), scale=0.3)


@pytest.fixture
def model(one_device) -> Llama:
    return nnx.merge(*parameters())


@jax.jit
def all_logits(model, tokens):
    places = jnp.arange(tokens.shape[1])[None]
    return model(tokens, places, jnp.ones_like(tokens))[0]


def uncached_logits(model: Llama, tokens: list[int]) -> np.ndarray:
    """Scores after the last token; what pads the row behind it cannot matter."""
    row = jnp.asarray([tokens + [0] * (CONFIG.max_seq_len - len(tokens))])
    return np.asarray(all_logits(model, row)[len(tokens) - 1])


def uncached_greedy(model: Llama, prompt: list[int], num_tokens: int) -> list[int]:
    tokens = list(prompt)
    for _ in range(num_tokens):
        tokens.append(int(np.argmax(uncached_logits(model, tokens))))
    return tokens[len(prompt) :]


def test_greedy_tokens_are_those_of_repeated_full_forwards(model):
    completions = generate(model, PROMPTS, max_new_tokens=20, sampling=GREEDY)
    expected = [uncached_greedy(model, prompt, 20) for prompt in PROMPTS]
    assert [completion.tokens for completion in completions] == expected
    assert len({tuple(tokens) for tokens in expected}) == len(PROMPTS)


def test_cached_logits_are_the_uncached_ones(model):
    lengths = np.array([7, 1, 4])
    rows = RNG.integers(0, 61, (3, 12))
    places = np.arange(8)[None]
    cache = init_cache(CONFIG, 3, 32, jnp.dtype("float32"))
    decode = jax.jit(lambda model, *arguments: model.decode(*arguments))
    positions = jnp.where(places < lengths[:, None], places, -1)
    _, cache = decode(model, jnp.asarray(rows[:, :8]), positions, cache)
    for step in range(4):
        here = lengths + step
        token = jnp.asarray(rows[np.arange(3), here][:, None])
        logits, cache = decode(model, token, jnp.asarray(here[:, None]), cache)
        for row in range(3):
            expected = uncached_logits(model, rows[row, : here[row] + 1].tolist())
            np.testing.assert_allclose(logits[row, 0], expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("sampling", [GREEDY, Sampling(top_k=5, top_p=0.9)])
def test_a_prompt_gets_the_same_whatever_is_beside_it(model, sampling):
    seeds = [3, 1, 4, 1, 5]
    arguments = {"max_new_tokens": 15, "sampling": sampling, "stop_ids": [7]}
    together = generate(model, PROMPTS, seeds=seeds, **arguments)
    backwards = generate(model, PROMPTS[::-1], seeds=seeds[::-1], **arguments)
    assert backwards[::-1] == together
    for prompt, seed, expected in zip(PROMPTS, seeds, together, strict=True):
        assert generate(model, [prompt], seeds=[seed], **arguments) == [expected]


def test_the_first_token_is_drawn_from_the_models_distribution(model):
    prompt, calls = PROMPTS[0], 60
    drawn = np.zeros(61)
    for call in range(calls):
        seeds = range(call * MANY, (call + 1) * MANY)
        for completion in generate(model, [prompt] * MANY, max_new_tokens=1, seeds=seeds):
            drawn[completion.tokens[0]] += 1
    draws = calls * MANY
    expected = jax.nn.softmax(uncached_logits(model, prompt))
    np.testing.assert_allclose(drawn / draws, expected, atol=5 * 0.5 / np.sqrt(draws))


def test_seeds_decide(model):
    first, again, *others = generate(
        model, [PROMPTS[0]] * MANY, max_new_tokens=20, seeds=[1, *range(1, MANY)]
    )
    assert first == again
    assert first not in others


def test_every_place_draws_anew(model):
    graphdef, params = nnx.split(model)
    # All tokens are equally probable everywhere: only the draws differ.
    flat = nnx.merge(graphdef, jax.tree.map(jnp.zeros_like, params))
    for completion in generate(flat, [PROMPTS[0]] * MANY, max_new_tokens=20, seeds=range(MANY)):
        assert len(set(completion.tokens)) > 8


def test_prompts_of_other_lengths_compile_nothing_new(model):
    generate(model, [PROMPTS[0]], max_new_tokens=10, sampling=GREEDY)
    programs = [generate_module._start, generate_module._advance]
    before = [program._cache_size() for program in programs]
    for length in (3, 9, 20):
        stop_ids = list(range(length % 8))
        arguments = {"max_new_tokens": length % 7 + 2, "seeds": [length], "stop_ids": stop_ids}
        generate(model, [list(range(length))], sampling=GREEDY, **arguments)
    assert [program._cache_size() for program in programs] == before


def test_a_stop_token_ends_its_own_row_alone(model):
    free = generate(model, PROMPTS, max_new_tokens=20, sampling=GREEDY)
    stop = free[0].tokens[4]
    stopped = generate(model, PROMPTS, max_new_tokens=20, sampling=GREEDY, stop_ids=[60, stop])
    assert stopped[0].finish == "stop"
    for before, after in zip(free, stopped, strict=True):
        end = before.tokens.index(stop) + 1 if stop in before.tokens else 20
        assert after.tokens == before.tokens[:end]
        assert after.finish == ("stop" if stop in before.tokens else "length")


def test_a_full_context_ends_a_row(model):
    prompt = list(range(60)) + list(range(30))
    (completion,) = generate(model, [prompt], max_new_tokens=50, sampling=GREEDY)
    assert completion.finish == "context"
    assert completion.tokens == uncached_greedy(model, prompt, 6)


def test_ids_beyond_the_tokenizer_are_never_drawn(model):
    completions = generate(
        model, [PROMPTS[0]] * MANY, max_new_tokens=20, seeds=range(MANY), num_ids=9
    )
    assert {token for completion in completions for token in completion.tokens} == set(range(9))


def test_tokens_come_as_they_are_drawn(model):
    calls = []
    completions = generate(
        model,
        PROMPTS,
        max_new_tokens=20,
        sampling=GREEDY,
        on_tokens=lambda row, tokens: calls.append((row, tokens)),
    )
    for row, completion in enumerate(completions):
        parts = [token for number, tokens in calls if number == row for token in tokens]
        assert parts == completion.tokens
    assert len(calls[0][1]) == 1, "the first token must not wait for others"


def test_matrices_in_the_compute_dtype_change_no_score(model):
    graphdef, params = random_params(CONFIG, ComputeConfig(dtype="bfloat16"), scale=0.3)
    model = nnx.merge(graphdef, params)
    light = in_compute_dtype(model)
    assert light.embed.table.dtype == jnp.bfloat16
    assert light.blocks.mlp.gate.dtype == jnp.bfloat16
    assert light.final_norm.scale.dtype == jnp.float32
    row = jnp.asarray([PROMPTS[3]])
    np.testing.assert_array_equal(all_logits(light, row), all_logits(model, row))


@pytest.mark.parametrize(("length", "size"), [(1, 32), (32, 32), (33, 64), (65, 96), (96, 96)])
def test_buckets_are_powers_of_two_within_the_context(length, size):
    assert bucket(length, CONFIG.max_seq_len) == size


def test_no_prompts_give_no_completions(model):
    assert generate(model, [], max_new_tokens=5) == []


@pytest.mark.parametrize(
    ("prompts", "changes", "complaint"),
    [
        ([[1] * 300], {}, r"prompt has 300 tokens; model\.max_seq_len=96 .* shorten it to 95"),
        ([[1], [1] * 96], {}, r"prompt 1 has 96 tokens; model\.max_seq_len=96"),
        ([[]], {}, r"prompt has no tokens; begin it with the tokenizer's BOS"),
        ([[1, 61]], {}, r"prompt has the token id 61; model\.vocab_size=61"),
        ([[-1]], {}, r"prompt has the token id -1"),
        ([[1]], {"max_new_tokens": 0}, r"max_new_tokens=0 must be positive"),
        ([[1]], {"seeds": [1, 2]}, r"2 seeds for 1 prompts"),
        ([[1]], {"seeds": [-1]}, r"seed=-1 must be in \[0, 2\*\*32\)"),
        ([[1]], {"num_ids": 62}, r"the tokenizer knows 62 ids; model\.vocab_size=61"),
    ],
)
def test_impossible_requests_are_refused_by_name(model, prompts, changes, complaint):
    with pytest.raises(ValueError, match=complaint):
        generate(model, prompts, **{"max_new_tokens": 5} | changes)
