"""Meshes with fewer devices along `fsdp` and more along another axis, where a model allows them."""

import dataclasses
import math

from llama_jax.config import MeshConfig, RunConfig

_LEAST_TOKENS = 128  # of a row on a device: the smallest block of the attention kernels


def split_heads(config: RunConfig, mesh: MeshConfig, ways: int) -> MeshConfig | None:
    """`ways` times as many devices for heads, MLP and vocabulary; None where they do not divide."""
    model, tensor = config.model, mesh.tensor * ways
    sizes = (model.num_kv_heads, model.num_heads, model.mlp_dim, model.vocab_size)
    fewer = _fewer(mesh, ways)
    if fewer is None or any(size % tensor for size in sizes):
        return None
    return dataclasses.replace(fewer, tensor=tensor)


def split_rows(config: RunConfig, mesh: MeshConfig, ways: int) -> MeshConfig | None:
    """`ways` times as many devices for each row; None where its tokens or heads do not divide."""
    context = mesh.context * ways
    tokens, rest = divmod(config.data.seq_len, context)
    fewer = _fewer(mesh, ways)
    if fewer is None or rest or tokens % _LEAST_TOKENS or tokens % config.compute.loss_chunks:
        return None
    if config.compute.context == "all_to_all" and config.model.num_heads % (context * mesh.tensor):
        return None
    return dataclasses.replace(fewer, context=context)


def split_copies(mesh: MeshConfig, ways: int) -> MeshConfig | None:
    """`ways` times as many copies of the model; None where devices do not divide."""
    fewer = _fewer(mesh, ways)
    return fewer and dataclasses.replace(fewer, replica=mesh.replica * ways)


def _fewer(mesh: MeshConfig, ways: int) -> MeshConfig | None:
    """With `ways` times fewer devices for parameters; an axis of -1 does so by itself."""
    if mesh.fsdp == -1:
        return mesh
    of_plane = math.gcd(mesh.fsdp, ways)
    of_line = ways // of_plane
    if mesh.fsdp_line % of_line:
        return None
    return dataclasses.replace(
        mesh, fsdp=mesh.fsdp // of_plane, fsdp_line=mesh.fsdp_line // of_line
    )


def mesh_flags(mesh: MeshConfig) -> str:
    """A mesh as the command line takes it."""
    default = dataclasses.asdict(MeshConfig())
    return " ".join(
        f"--mesh.{name.replace('_', '-')} {size}"
        for name, size in dataclasses.asdict(mesh).items()
        if size != default[name]
    )
