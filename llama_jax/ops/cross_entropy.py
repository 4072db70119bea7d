"""Cross-entropy of the output projection, without ever holding all of its logits."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Int

from llama_jax.sharding import constrain, num_shards


class LossSums(NamedTuple):
    """Sums over a batch; a mean is `(nats + z) / weight`, with sums taken over all its pieces.

    Differentiate `nats + z`, and nothing else: the gradient of both travels through `nats`, and
    `z` alone has none.
    """

    nats: Float[Array, ""]  # negative log-likelihood
    z: Float[Array, ""]  # z_loss * log(Z)**2, to be added to `nats`
    weight: Float[Array, ""]  # of the mask


class _Chunk(NamedTuple):
    """A piece of each row on each device; `C` devices split a row, `R` tokens of it on each."""

    hidden: Float[Array, "*chunks B C R D"]
    targets: Int[Array, "*chunks B C R"]
    mask: Float[Array, "*chunks B C R"]


def cross_entropy(
    hidden: Float[Array, "B T D"],
    table: Float[Array, "V D"],
    targets: Int[Array, "B T"],
    loss_mask: Float[Array, "B T"],
    *,
    num_chunks: int,
    z_loss: float = 0.0,
) -> LossSums:
    """Negative log-likelihood of the targets, summed over the mask.

    The tokens of each row are taken in `num_chunks` pieces, so that the split of the batch over
    devices stays as it is and only one piece's float32 logits are live. Where gradients are
    wanted, each piece's are computed beside its loss, from the same logits: three matmuls with
    the table, where recomputing the logits in the backward pass would take four.

    Args:
        hidden: Output of the final norm; its dtype is that of the matmuls.
        table: Output projection; in its dtype its gradient comes back, summed in float32.
        targets: Ids in [0, V); any valid id where the mask is 0.
        loss_mask: Weight of each target, 0 where it does not count.
        num_chunks: Pieces of a row.
        z_loss: Weight of the squared log-normaliser.

    Returns:
        Float32 sums.

    Raises:
        ValueError: If the part of a row that a device holds cannot be cut into `num_chunks`.

    Source: z-loss, Chowdhery et al. 2022, PaLM (arXiv:2204.02311), section 5.
    """
    chunks = _cut(hidden, targets, loss_mask, num_chunks)
    nats, z = _sums_with_gradients(chunks, table, z_loss)
    return LossSums(nats, z, jnp.sum(loss_mask))


def _sums(
    chunks: _Chunk, table: Float[Array, "V D"], z_loss: float
) -> tuple[Float[Array, ""], Float[Array, ""]]:
    weights = _gather_table(table, chunks.hidden.dtype)

    def add_chunk(sums: tuple[Array, Array], chunk: _Chunk) -> tuple[tuple[Array, Array], None]:
        nats, z, _, _ = _score(chunk, weights, z_loss)
        return (sums[0] + nats, sums[1] + z), None

    zero = jnp.zeros((), jnp.float32)
    return jax.lax.scan(add_chunk, (zero, zero), chunks)[0]


def _sums_and_gradients(
    chunks: _Chunk, table: Float[Array, "V D"], z_loss: float
) -> tuple[tuple[Array, Array], tuple[_Chunk, Array]]:
    weights = _gather_table(table, chunks.hidden.dtype)

    def add_chunk(
        sums: tuple[Array, Array, Array], chunk: _Chunk
    ) -> tuple[tuple[Array, Array, Array], Array]:
        nats, z, powers, log_z = _score(chunk, weights, z_loss)
        scale = chunk.mask * (1 + 2 * z_loss * log_z) / jnp.sum(powers, axis=-1)
        d_logits = powers * scale[..., None]
        d_logits = d_logits - jnp.where(_is_target(chunk, powers), chunk.mask[..., None], 0)
        d_logits = d_logits.astype(weights.dtype)
        d_hidden = _einsum("*V,VD->*D", d_logits, weights).astype(weights.dtype)
        d_table = constrain(
            sums[2] + _einsum("*D,*V->DV", chunk.hidden, d_logits), "embed", "vocab"
        )
        d_hidden = constrain(d_hidden, "batch", "seq", None, "act_embed")
        return (sums[0] + nats, sums[1] + z, d_table), d_hidden

    zero = jnp.zeros((), jnp.float32)
    # Summed turned: to contract the tokens of logits that come first, XLA on CPU copies them.
    d_table = constrain(jnp.zeros(table.shape[::-1], jnp.float32), "embed", "vocab")
    (nats, z, d_table), d_hidden = jax.lax.scan(add_chunk, (zero, zero, d_table), chunks)
    return (nats, z), (chunks._replace(hidden=d_hidden), d_table.T.astype(table.dtype))


def _scale_gradients(
    z_loss: float, gradients: tuple[_Chunk, Array], cotangents: tuple[Array, Array]
) -> tuple[_Chunk, Array]:
    scale, _ = cotangents
    chunks, d_table = gradients
    d_hidden = (chunks.hidden * scale).astype(chunks.hidden.dtype)
    no_gradient: Any = np.zeros(chunks.targets.shape, jax.dtypes.float0)
    d_table = (d_table * scale).astype(d_table.dtype)
    return _Chunk(d_hidden, no_gradient, jnp.zeros_like(chunks.mask)), d_table


_sums_with_gradients = jax.custom_vjp(_sums, nondiff_argnums=(2,))
_sums_with_gradients.defvjp(_sums_and_gradients, _scale_gradients)


def _score(
    chunk: _Chunk, weights: Float[Array, "V D"], z_loss: float
) -> tuple[Array, Array, Float[Array, "B C R V"], Float[Array, "B C R"]]:
    logits = _einsum("*D,VD->*V", chunk.hidden, weights)
    logits = constrain(logits, "batch", "seq", None, "act_vocab")
    largest = jnp.max(logits, axis=-1, keepdims=True)
    powers = jnp.exp(logits - largest)
    log_z = jnp.log(jnp.sum(powers, axis=-1)) + largest[..., 0]
    if num_shards("act_vocab") == 1:
        target_logit = jnp.take_along_axis(logits, chunk.targets[..., None], axis=-1)[..., 0]
    else:  # A sum over a mask instead of a gather stays local where the vocabulary is split.
        target_logit = jnp.sum(jnp.where(_is_target(chunk, logits), logits, 0), axis=-1)
    nats = jnp.sum((log_z - target_logit) * chunk.mask)
    z = jnp.sum(z_loss * jnp.square(log_z) * chunk.mask)
    return nats, z, powers, log_z


def _einsum(letters: str, a: Array, b: Array) -> Array:
    """`jnp.einsum` into float32, where `*` stands for all axes of a chunk's tokens."""
    chunk = a if letters[0] == "*" else b
    if chunk.shape[1] > 1:  # devices split each row: its tokens and the batch stay two axes
        return jnp.einsum(letters.replace("*", "BCR"), a, b, preferred_element_type=jnp.float32)
    # Else one plain matmul: from one with more axes, XLA on CPU makes copies of all the logits.
    a, b = (x.reshape(-1, x.shape[-1]) for x in (a, b))
    out = jnp.einsum(letters.replace("*", "T"), a, b, preferred_element_type=jnp.float32)
    return out.reshape(*chunk.shape[:-1], -1) if "->*" in letters else out


def _is_target(chunk: _Chunk, logits: Float[Array, "B C R V"]) -> Array:
    return jax.lax.broadcasted_iota(jnp.int32, logits.shape, 3) == chunk.targets[..., None]


def _gather_table(table: Float[Array, "V D"], dtype: jnp.dtype) -> Float[Array, "V D"]:
    """Whole along `embed`, once for all chunks rather than once in each."""
    return constrain(table.astype(dtype), "vocab", None)


def _cut(
    hidden: Float[Array, "B T D"],
    targets: Int[Array, "B T"],
    loss_mask: Float[Array, "B T"],
    num_chunks: int,
) -> _Chunk:
    """Cuts what each device holds of a row, so that every device works on every chunk."""
    C = num_shards("seq")
    T = hidden.shape[1]
    if T % (C * num_chunks):
        raise ValueError(
            f"compute.loss_chunks={num_chunks} must divide the {T // C} tokens of a row of {T} "
            f"that one of {C} devices holds."
        )

    def cut(x: Array, *trailing: str) -> Array:
        pieces = x.reshape(x.shape[0], C, num_chunks, T // (C * num_chunks), *x.shape[2:])
        pieces = jnp.moveaxis(pieces, 2, 0)
        return constrain(pieces, None, "batch", "seq", None, *trailing)

    return _Chunk(cut(hidden, "act_embed"), cut(targets), cut(loss_mask))
