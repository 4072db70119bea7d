"""Meta's files that are not understood in full are refused by name, and nothing is left behind."""

import collections
import io
import json
import pickle
import re
import shutil
import subprocess
import sys
import zipfile

import pytest

from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config
from llama_jax.config import Llama3Rope
from tests.parity.meta_release import RELEASES, slice_of, write_release

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_device")]
PARAMS, AXIS, _ = RELEASES["LLaMA-3"]


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def refused(tmp_path, capfd, complaint, *arguments):
    arguments = arguments or ("--max-seq-len", 64)
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


def gap_in_ranks(folder, whole):
    (folder / "consolidated.00.pth").rename(folder / "consolidated.01.pth")


def no_ranks(folder, whole):
    (folder / "consolidated.00.pth").unlink()


def cut(folder, whole):
    path = folder / "consolidated.00.pth"
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def with_tensors(*changes):
    """Rank after rank, what is changed in its file; None takes a tensor out."""

    def damage(folder, whole):
        ranks = [
            slice_of(whole, AXIS, rank, len(changes)) | changes[rank]
            for rank in range(len(changes))
        ]
        save_ranks(folder, *({k: v for k, v in rank.items() if v is not None} for rank in ranks))

    return damage


def with_params(**changes):
    def damage(folder, whole):
        params = {k: v for k, v in (PARAMS | changes).items() if v is not ...}
        (folder / "params.json").write_text(json.dumps(params))

    return damage


EMBEDDING, OUTPUT = "tok_embeddings.weight", "output.weight"
NORM, FIRST = "norm.weight", "layers.0.attention.wq.weight"
REFUSALS = [
    (no_ranks, r"has no consolidated\.NN\.pth"),
    (gap_in_ranks, r"consolidated\.00\.pth is missing"),
    (cut, r"consolidated\.00\.pth is no file of plain tensors"),
    (with_tensors({"epoch": 3}), "holds other things than named tensors"),
    (with_tensors({NORM: torch.zeros(32).to_sparse()}), "holds other things than named tensors"),
    (with_tensors({NORM: torch.zeros(32, device="meta")}), "other things|no file of plain"),
    (with_tensors({}, {"norm.bias": torch.zeros(32)}), r"01\.pth: norm\.bias is not in all ranks"),
    (with_tensors({}, {NORM: None}), r"01\.pth: norm\.weight is not in all ranks"),
    (with_tensors({}, {NORM: torch.zeros(32).bfloat16()}), r"norm\.weight is not the same in all"),
    (with_tensors({EMBEDDING: None}), r"the tensor tok_embeddings\.weight is missing"),
    (
        with_tensors({name: torch.zeros(0, 32).bfloat16() for name in (EMBEDDING, OUTPUT)}),
        "vocab_size=96 contradicts the 0 rows of tok_embeddings",
    ),
    (with_tensors({EMBEDDING: torch.zeros(32).bfloat16()}), r"\[\(32,\)\]; it is no table"),
    (with_tensors({}, {}, {}), "3 ranks cannot split layers|has the shape"),
    (
        with_tensors({NORM: torch.zeros(1).bfloat16().expand(32)}),
        r"norm\.weight is a view of other",
    ),
    (with_tensors({FIRST: torch.zeros(32, 32).bfloat16().T}), r"wq\.weight is a view of other"),
    (with_params(n_kv_heads="2"), "n_kv_heads='2' must be a positive whole number"),
    (with_params(n_kv_heads=0), "n_kv_heads=0 must be a positive whole number"),
    (with_params(n_heads=2.0), r"n_heads=2\.0 must be a positive whole number"),
    (with_params(dim=...), "dim=None must be a positive whole number"),
    (with_params(dim=33), r"dim=33 is no multiple of n_heads=4"),
    (with_params(norm_eps=None), "norm_eps=None must be a number"),
    (with_params(rope_theta=[1]), r"rope_theta=\[1\] must be a number"),
    (with_params(rope_theta=float("inf")), "rope_theta=inf must be a number"),
    (with_params(rope_theta=10**400), "rope_theta=10*0 must be a number"),
    (with_params(ffn_dim_multiplier="1.3"), r"ffn_dim_multiplier='1\.3' must be a number"),
    (with_params(ffn_dim_multiplier=-1), r"model\.mlp_dim must be positive"),
    (with_params(max_seq_len="x"), "max_seq_len='x' must be a number"),
    (with_params(max_seq_len=64.0), r"max_seq_len=64\.0 must be a positive whole number"),
    (with_params(use_scaled_rope="false"), "use_scaled_rope='false' must be true or false"),
    (
        with_params(use_scaled_rope=True),
        "rope_scaling_factor is left open; say it with --rope-factor",
    ),
    (with_params(max_seq_len=300), "--max-seq-len=64 contradicts max_seq_len=300"),
]


@pytest.mark.parametrize(("damage", "complaint"), REFUSALS, ids=[text for _, text in REFUSALS])
def test_what_is_not_understood_is_refused_by_name(tmp_path, capfd, damage, complaint):
    whole = write_release(tmp_path / "meta", PARAMS, AXIS, "bfloat16")
    damage(tmp_path / "meta", whole)
    refused(tmp_path, capfd, complaint)


def test_a_folder_of_hugging_face_is_told_its_command(tmp_path, capfd):
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf/config.json").write_text("{}")
    assert convert("from-meta", tmp_path / "hf", tmp_path / "run") == 2
    assert "use `llama-jax convert from-hf`" in capfd.readouterr().err


def test_what_params_leave_open_is_asked_for(tmp_path, capfd):
    params = PARAMS | {"use_scaled_rope": True}
    write_release(tmp_path / "meta", params, AXIS, "bfloat16")
    refused(tmp_path, capfd, "max_seq_len is left open; say it", "--rope-factor", 32)
    refused(tmp_path, capfd, "rope_scaling_factor is left open; say it", "--max-seq-len", 64)
    arguments = ["--rope-factor", 32, "--max-seq-len", 64]
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run", *arguments) == 0
    model = read_config(tmp_path / "run").model
    assert (model.max_seq_len, model.rope) == (64, Llama3Rope(factor=32.0))
    # What the run does not need to be told again, `check` takes from it.
    assert convert("check", tmp_path / "meta", tmp_path / "run") == 0
    shutil.rmtree(tmp_path / "run")
    (tmp_path / "meta/params.json").write_text(json.dumps(PARAMS))
    refused(tmp_path, capfd, "does not stretch RoPE", "--rope-factor", 8, "--max-seq-len", 64)


class Claims:
    """A tensor of any size, over a storage that the file may or may not have."""

    def __init__(self, values, count, shape, stride):
        self.values, self.count, self.shape, self.stride = values, count, shape, stride


def write_claims(path, claims):
    """A file as torch.save writes it, whose pickle says what it likes of sizes."""

    class Pickler(pickle.Pickler):
        def persistent_id(self, value):
            if isinstance(value, tuple) and value[:1] == ("storage",):
                return ("storage", torch.FloatStorage, value[1], "cpu", value[2])
            return None

        def reducer_override(self, value):
            if not isinstance(value, Claims):
                return NotImplemented
            key = ("storage", str(id(value)), value.count)
            rest = (0, value.shape, value.stride, False, collections.OrderedDict())
            return torch._utils._rebuild_tensor_v2, (key, *rest)

    stream = io.BytesIO()
    Pickler(stream, protocol=2).dump(claims)
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", stream.getvalue())
        file.writestr("archive/version", "3\n")
        file.writestr("archive/byteorder", "little")
        for claim in claims.values():
            file.writestr(f"archive/data/{id(claim)}", claim.values.numpy().tobytes())


HUGE = 1 << 36
CLAIMS = {
    "a storage that the file lacks": (HUGE, (HUGE,), (1,)),
    "one value everywhere": (4, (1 << 18, 1 << 18), (0, 0)),
    "values used many times": (4, (HUGE,), (1,)),
    "strides of one": (4, (2, 3), (1, 1)),
}


@pytest.mark.parametrize("claim", CLAIMS)
def test_sizes_that_a_file_does_not_have_take_no_memory(tmp_path, capfd, claim):
    values = torch.zeros(4)
    (tmp_path / "meta").mkdir()
    (tmp_path / "meta/params.json").write_text(json.dumps(PARAMS))
    path = tmp_path / "meta/consolidated.00.pth"
    write_claims(path, {EMBEDDING: Claims(values, 4, (2, 2), (2, 1))})
    assert torch.equal(torch.load(path, weights_only=True)[EMBEDDING], values.view(2, 2))
    write_claims(path, {EMBEDDING: Claims(values, *CLAIMS[claim])})
    program = """
import resource, sys
import torch
from llama_jax.cli.main import main
import llama_jax.cli.convert, llama_jax.convert.meta_import
used = 1024 * int(open("/proc/self/status").read().split("VmSize:")[1].split()[0])
resource.setrlimit(resource.RLIMIT_AS, (used + (200 << 20),) * 2)
sys.exit(main(["convert", "from-meta", *sys.argv[1:], "--dry-run", "--max-seq-len", "64"]))
"""
    command = [sys.executable, "-c", program, str(tmp_path / "meta"), str(tmp_path / "run")]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert re.search("is a view of other values|is no file of plain tensors", done.stderr)


def test_a_flipped_bit_is_found_by_the_certificate(tmp_path, capfd):
    write_release(tmp_path / "meta", PARAMS, AXIS, "bfloat16", ranks=2)
    arguments = ["--max-seq-len", 64]
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run", *arguments) == 0
    (tmp_path / "run/certificate.json").rename(tmp_path / "meta/certificate.json")
    shutil.rmtree(tmp_path / "run")
    path = tmp_path / "meta/consolidated.01.pth"
    tensors = torch.load(path)
    tensors[FIRST].view(torch.int16)[3, 3] ^= 1
    torch.save(tensors, path)
    refused(tmp_path, capfd, "q_proj.weight is not what the certificate beside it", *arguments)
