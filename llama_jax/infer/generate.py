"""Continues prompts token by token, with a KV cache; few programs serve prompts of any length."""

import dataclasses
import functools
import time
from collections.abc import Callable, Sequence
from typing import Literal, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import nnx
from jax.experimental import multihost_utils
from jaxtyping import Array, Bool, Int, Key

from llama_jax.config import ModelConfig
from llama_jax.infer.sampling import Sampling, sample
from llama_jax.model.llama import KVCache, Llama, init_cache, resolve_dtype

SMALLEST_BUCKET_TOKENS = 32
# The host looks at new tokens about this often: for streaming, and for Ctrl-C.
_SECONDS_BETWEEN_LOOKS = 0.05
# Of several processes, whose clocks differ, all look after so many.
_TOKENS_BETWEEN_LOOKS = 16
_STOP_SLOTS = 8


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Completion:
    """What a model said after one prompt.

    Attributes:
        tokens: New ids, the stop token included where there is one.
        finish: "stop" at a stop token, "length" after `max_new_tokens`, "context" where the
            model's context is full.
    """

    tokens: list[int]
    finish: Literal["stop", "length", "context"]


class _Rows(NamedTuple):
    """Rows in progress; slot `s` of a row is its token of position `s`, prompt first."""

    tokens: Int[Array, "B S"]
    length: Int[Array, "B"]
    done: Bool[Array, "B"]
    cache: KVCache


class _Rules(NamedTuple):
    limit: Int[Array, "B"]  # tokens of a row, prompt included, at which it ends
    keys: Key[Array, "B"]
    stop_ids: Int[Array, "E"]  # -1 fills unused slots
    num_ids: Int[Array, ""]  # ids from here on are never drawn


def generate(
    model: Llama,
    prompts: Sequence[Sequence[int]],
    *,
    max_new_tokens: int,
    sampling: Sampling = Sampling(),
    seeds: Sequence[int] | None = None,
    stop_ids: Sequence[int] = (),
    num_ids: int | None = None,
    on_tokens: Callable[[int, list[int]], None] | None = None,
) -> list[Completion]:
    """Continues each prompt; what one gets does not depend on the others beside it.

    The layout that the model's parameters were made in must be current; of several processes, all
    call this with the same arguments and get the same answer. Lengths are rounded up
    to powers of two before compilation, so that few programs serve all prompts.

    Args:
        model: With its parameters.
        prompts: Ids of each prompt, of any lengths; the first is usually BOS.
        max_new_tokens: For each prompt.
        sampling: How tokens are drawn.
        seeds: One a prompt, in [0, 2**32); the same seed and prompt give the same tokens. All 0
            by default.
        stop_ids: A prompt's completion ends with the first of these.
        num_ids: Ids that the tokenizer knows, where the model's vocabulary is padded beyond.
        on_tokens: Called with the number of a prompt and its newest tokens as they come.

    Raises:
        ValueError: If a prompt is empty, has an id outside the vocabulary or leaves no room in
            the context, or an argument is out of range.
    """
    config = model.config
    num_ids = config.vocab_size if num_ids is None else num_ids
    seeds = [0] * len(prompts) if seeds is None else seeds
    check_prompts(config, prompts)
    _check_request(config, len(prompts), max_new_tokens, seeds, num_ids)
    if not prompts:
        return []
    graphdef, params = nnx.split(model)
    limit = [min(len(prompt) + max_new_tokens, config.max_seq_len) for prompt in prompts]
    num_stops = -(-max(len(stop_ids), 1) // _STOP_SLOTS) * _STOP_SLOTS
    stops = [*stop_ids, *[-1] * (num_stops - len(stop_ids))]
    rules = _Rules(
        limit=jnp.asarray(limit, jnp.int32),
        keys=jax.vmap(jax.random.key)(jnp.asarray(seeds, jnp.uint32)),
        stop_ids=jnp.asarray(stops, jnp.int32),
        num_ids=jnp.asarray(num_ids, jnp.int32),
    )
    num_slots = bucket(max(limit), config.max_seq_len)
    rows = _start(graphdef, params, *_pad(prompts, config.max_seq_len), num_slots)

    seen = [len(prompt) for prompt in prompts]
    num_steps = 1
    while True:
        started = time.perf_counter()
        rows = _advance(graphdef, params, rows, rules, num_steps, sampling)
        tokens, length, done = map(_read, (rows.tokens, rows.length, rows.done))
        for row, end in enumerate(length.tolist()):
            if on_tokens is not None and end > seen[row]:
                on_tokens(row, tokens[row, seen[row] : end].tolist())
            seen[row] = end
        if done.all():
            break
        if jax.process_count() > 1:
            num_steps = _TOKENS_BETWEEN_LOOKS
        elif time.perf_counter() - started < _SECONDS_BETWEEN_LOOKS:
            num_steps *= 2
    new = [tokens[i, len(prompt) : seen[i]].tolist() for i, prompt in enumerate(prompts)]
    return [Completion(tokens=ids, finish=_finish(ids, stop_ids, max_new_tokens)) for ids in new]


def _read(array: Array) -> np.ndarray:
    """Of several processes, each has parts alone."""
    if array.is_fully_addressable:
        return np.asarray(array)
    return np.asarray(multihost_utils.process_allgather(array, tiled=True))


def in_compute_dtype(model: Llama) -> Llama:
    """The same model with its matrices in the compute dtype, in which it reads them anyway.

    Each new token reads every parameter: in bfloat16 that is half of the bytes.
    """
    dtype = resolve_dtype(model.compute)

    def cast(path: tuple[object, ...], leaf: jax.Array) -> jax.Array:
        # Norms are computed in float32.
        return leaf if "norm" in jax.tree_util.keystr(path) else leaf.astype(dtype)

    graphdef, params = nnx.split(model)
    return nnx.merge(graphdef, jax.tree.map_with_path(cast, params))


def bucket(length: int, max_seq_len: int) -> int:
    """The length that a compiled program is made for: the next power of two, within the context."""
    return min(max(SMALLEST_BUCKET_TOKENS, 1 << (int(length) - 1).bit_length()), max_seq_len)


def _pad(
    prompts: Sequence[Sequence[int]], max_seq_len: int
) -> tuple[Int[np.ndarray, "B W"], Int[np.ndarray, "B"]]:
    lengths = np.array([len(prompt) for prompt in prompts], np.int32)
    tokens = np.zeros((len(prompts), bucket(lengths.max(), max_seq_len)), np.int32)
    for row, prompt in enumerate(prompts):
        tokens[row, : len(prompt)] = prompt
    return tokens, lengths


@functools.partial(jax.jit, static_argnums=(0, 4))
def _start(
    graphdef: nnx.GraphDef[Llama],
    params: nnx.State,
    tokens: Int[Array, "B W"],
    length: Int[Array, "B"],
    num_slots: int,
) -> _Rows:
    model = nnx.merge(graphdef, params)
    batch, width = tokens.shape
    cache = init_cache(model.config, batch, num_slots, resolve_dtype(model.compute))
    # All but the last token of each prompt: the loop begins with that one, and needs no scores of
    # the others (XLA drops their vocabulary projection).
    places = jnp.arange(width)[None, :]
    positions = jnp.where(places < length[:, None] - 1, places, -1)
    _, cache = model.decode(tokens, positions, cache)
    row = jnp.zeros((batch, num_slots), jnp.int32).at[:, :width].set(tokens)
    return _Rows(row, length, jnp.zeros(batch, bool), cache)


@functools.partial(jax.jit, static_argnums=(0, 5), donate_argnums=2)
def _advance(
    graphdef: nnx.GraphDef[Llama],
    params: nnx.State,
    rows: _Rows,
    rules: _Rules,
    num_steps: Int[Array, ""] | int,
    sampling: Sampling,
) -> _Rows:
    model = nnx.merge(graphdef, params)
    batch, num_slots = rows.tokens.shape

    def unfinished(carry: tuple[Array, _Rows]) -> Array:
        step, rows = carry
        return (step < num_steps) & ~jnp.all(rows.done)

    def one_token(carry: tuple[Array, _Rows]) -> tuple[Array, _Rows]:
        step, (tokens, length, done, cache) = carry
        last = jnp.take_along_axis(tokens, length[:, None] - 1, axis=1)
        positions = jnp.where(done, -1, length - 1)[:, None]
        logits, cache = model.decode(last, positions, cache)
        known = jnp.arange(logits.shape[-1]) < rules.num_ids
        # A key of its own for each place: what is drawn does not depend on how it was reached.
        keys = jax.vmap(jax.random.fold_in)(rules.keys, length)
        drawn = sample(jnp.where(known, logits[:, 0], -jnp.inf), keys, sampling)
        slot = jnp.where(done, num_slots, length)
        tokens = tokens.at[jnp.arange(batch), slot].set(drawn, mode="drop")
        length = jnp.where(done, length, length + 1)
        done = done | jnp.isin(drawn, rules.stop_ids) | (length >= rules.limit)
        return step + 1, _Rows(tokens, length, done, cache)

    _, rows = jax.lax.while_loop(unfinished, one_token, (jnp.zeros((), jnp.int32), rows))
    return rows


def _finish(
    ids: list[int], stop_ids: Sequence[int], max_new_tokens: int
) -> Literal["stop", "length", "context"]:
    if ids[-1] in stop_ids:
        return "stop"
    return "length" if len(ids) == max_new_tokens else "context"


def _check_request(
    config: ModelConfig,
    num_prompts: int,
    max_new_tokens: int,
    seeds: Sequence[int],
    num_ids: int,
) -> None:
    if max_new_tokens < 1:
        raise ValueError(f"max_new_tokens={max_new_tokens} must be positive.")
    if not 0 < num_ids <= config.vocab_size:
        raise ValueError(
            f"the tokenizer knows {num_ids} ids; model.vocab_size={config.vocab_size} must be that "
            "many or more: use the tokenizer that the model was trained with."
        )
    if len(seeds) != num_prompts:
        raise ValueError(f"{len(seeds)} seeds for {num_prompts} prompts; give one a prompt.")
    if wrong := [seed for seed in seeds if not 0 <= seed < 1 << 32]:
        raise ValueError(f"seed={wrong[0]} must be in [0, 2**32).")


def check_prompts(config: ModelConfig, prompts: Sequence[Sequence[int]]) -> None:
    """Refuses prompts that a model cannot continue.

    Raises:
        ValueError: If one is empty, has an id outside the vocabulary, or fills the context.
    """
    for number, prompt in enumerate(prompts):
        name = "prompt" if len(prompts) == 1 else f"prompt {number}"
        if not prompt:
            raise ValueError(f"{name} has no tokens; begin it with the tokenizer's BOS.")
        if len(prompt) >= config.max_seq_len:
            raise ValueError(
                f"{name} has {len(prompt)} tokens; model.max_seq_len={config.max_seq_len} holds "
                f"the prompt and what follows: shorten it to {config.max_seq_len - 1} or fewer."
            )
        if outside := [token for token in prompt if not 0 <= token < config.vocab_size]:
            raise ValueError(
                f"{name} has the token id {outside[0]}; model.vocab_size={config.vocab_size} "
                "allows ids below that: use the tokenizer that the model was trained with."
            )
