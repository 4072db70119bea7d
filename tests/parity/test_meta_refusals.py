"""Meta's files that are not understood in full are refused by name, and nothing is left behind."""

import re

import pytest

from llama_jax.cli.main import main
from tests.parity.meta_release import RELEASES, slice_of, write_release

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_device")]
PARAMS, AXIS, _ = RELEASES["LLaMA-3"]


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def refused(tmp_path, capfd, complaint, *arguments):
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run", *arguments) == 2
    message = capfd.readouterr().err
    assert re.search(complaint, message), message
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


def save_ranks(folder, *ranks):
    for rank, tensors in enumerate(ranks):
        torch.save(tensors, folder / f"consolidated.{rank:02d}.pth")


def test_layers_of_several_dtypes_are_refused(tmp_path, capfd):
    whole = write_release(tmp_path / "meta", PARAMS, AXIS, "bfloat16")
    name = "layers.1.feed_forward.w1.weight"
    save_ranks(tmp_path / "meta", whole | {name: whole[name].float()})
    complaint = r"layers\.1\.feed_forward\.w1\.weight is float32, layers\.0\..*w1\.weight is bfloat"
    refused(tmp_path, capfd, complaint)


@pytest.mark.parametrize("name", ["layers.0.attention.wq.weight", "norm.weight"])
def test_ranks_of_several_dtypes_are_refused(tmp_path, capfd, name):
    whole = write_release(tmp_path / "meta", PARAMS, AXIS, "bfloat16", ranks=2)
    first, second = (slice_of(whole, AXIS, rank, 2) for rank in range(2))
    save_ranks(tmp_path / "meta", first, second | {name: second[name].float()})
    complaint = rf"consolidated\.01\.pth: {name} is float32, in consolidated\.00\.pth it is bfloat"
    refused(tmp_path, capfd, complaint)
