"""What a run's devices held of its parameters makes no difference to what is exported."""

import jax
import pytest

from llama_jax.checkpoint import Checkpointer
from llama_jax.cli.main import main
from llama_jax.config import MeshConfig
from llama_jax.model import abstract_params
from llama_jax.sharding import make_mesh, use_layout
from tests.infer.saved_run import CONFIG, random_params, write_run


def contents(folder) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


@pytest.mark.parametrize(
    "axes", [{"fsdp": 4, "tensor": 2}, {"fsdp": 8}, {"replica": 2, "fsdp": 2, "tensor": 2}]
)
def test_a_run_of_many_devices_is_exported_as_that_of_one(tmp_path, axes):
    write_run(tmp_path / "one")
    write_run(tmp_path / "many")
    mesh = make_mesh(MeshConfig(**axes))
    with use_layout(mesh), Checkpointer(tmp_path / "many/checkpoints") as checkpointer:
        _, abstract = abstract_params(CONFIG.model, CONFIG.compute)
        _, params = random_params(CONFIG.model, CONFIG.compute, scale=0.5)
        params = jax.tree.map(
            lambda value, wanted: jax.device_put(value, wanted.sharding), params, abstract
        )
        query = params["blocks"]["attention"]["query"][...]
        assert len(query.addressable_shards) == 8
        assert query.addressable_shards[0].data.size < query.size
        checkpointer.save(11, {"params": params}, {"step": 11, "tokens": 1280})
    with Checkpointer(tmp_path / "one/checkpoints") as checkpointer:
        mesh = make_mesh(MeshConfig(), devices=jax.devices()[:1])
        with use_layout(mesh):
            _, params = random_params(CONFIG.model, CONFIG.compute, scale=0.5)
            checkpointer.save(11, {"params": params}, {"step": 11, "tokens": 1280})
    for name in ("one", "many"):
        arguments = [str(tmp_path / name), str(tmp_path / f"{name}_hf")]
        assert main(["convert", "to-hf", *arguments]) == 0
    assert contents(tmp_path / "one_hf") == contents(tmp_path / "many_hf")
    assert main(["convert", "check", str(tmp_path / "many"), str(tmp_path / "one_hf")]) == 0
