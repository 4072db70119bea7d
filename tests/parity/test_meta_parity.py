"""Meta's layout: written and read by PyTorch, never executed, bit for bit there and back."""

import json
import pickle
import zipfile

import numpy as np
import pytest

from llama_jax.cli.main import main
from llama_jax.config import LinearRope, Llama3Rope
from tests.convert.hf_folder import TINY, shrunk, write_hf
from tests.infer.saved_run import write_run
from tests.parity.meta_release import RELEASES, slice_of, write_release

torch = pytest.importorskip("torch", reason="PyTorch is not installed: make test-slow")

pytestmark = [pytest.mark.parity, pytest.mark.usefixtures("one_device")]


def convert(kind, *arguments) -> int:
    if kind == "from-meta":
        arguments += ("--max-seq-len", 300)
    return main(["convert", kind, *map(str, arguments)])


@pytest.mark.parametrize("ranks", [1, 2])
@pytest.mark.parametrize("release", RELEASES)
def test_meta_to_ours_to_meta_is_bit_identical(tmp_path, release, ranks):
    write_release(tmp_path / "meta", *RELEASES[release], ranks)
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "back") == 0
    for rank in range(ranks):
        name = f"consolidated.{rank:02d}.pth"
        first, second = (torch.load(tmp_path / side / name) for side in ("meta", "back"))
        assert first.keys() == second.keys()
        for key, value in first.items():
            assert value.dtype == second[key].dtype, key
            assert torch.equal(value, second[key]), key
    params = [
        json.loads((tmp_path / side / "params.json").read_text()) for side in ("meta", "back")
    ]
    assert params[0] == params[1]


def rotate(x, theta):
    """Meta's rotation, of adjacent channels as complex numbers."""
    T, H = x.shape[0], x.shape[-1]
    angles = torch.outer(torch.arange(T).double(), theta ** -(torch.arange(0, H, 2).double() / H))
    turn = torch.polar(torch.ones_like(angles), angles)[:, None]
    planes = torch.view_as_complex(x.reshape(*x.shape[:-1], -1, 2))
    return torch.view_as_real(planes * turn).flatten(-2)


def forward(weights, params, tokens):
    """Logits in float64, as Meta's model computes them."""
    w = {name: value.double() for name, value in weights.items()}
    N, theta = params["n_heads"], params.get("rope_theta", 1e4)

    def norm(x, name):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + params["norm_eps"]) * w[name]

    x = w["tok_embeddings.weight"][tokens]
    T, D = x.shape
    mask = torch.full((T, T), -torch.inf).triu(1)
    for layer in range(params["n_layers"]):
        at = f"layers.{layer}."
        y = norm(x, at + "attention_norm.weight")
        q, k, v = (
            (y @ w[f"{at}attention.{n}.weight"].T).view(T, -1, D // N) for n in ("wq", "wk", "wv")
        )
        k, v = (z.repeat_interleave(N // z.shape[1], 1) for z in (rotate(k, theta), v))
        scores = torch.einsum("tnh,snh->nts", rotate(q, theta), k) / (D // N) ** 0.5 + mask
        mixed = torch.einsum("nts,snh->tnh", scores.softmax(-1), v).reshape(T, D)
        x = x + mixed @ w[at + "attention.wo.weight"].T
        y = norm(x, at + "ffn_norm.weight")
        gate = torch.nn.functional.silu(y @ w[at + "feed_forward.w1.weight"].T)
        x = (
            x
            + (gate * (y @ w[at + "feed_forward.w3.weight"].T)) @ w[at + "feed_forward.w2.weight"].T
        )
    return norm(x, "norm.weight") @ w["output.weight"].T


def test_an_imported_release_computes_what_metas_model_does(tmp_path):
    from llama_jax.cli.convert.check import open_weights
    from llama_jax.convert.programs import OUTPUT, OurProgram, compute

    params, axis, _ = RELEASES["LLaMA-3"]
    weights = write_release(tmp_path / "meta", params, axis, "float32", ranks=2)
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 0
    tokens = np.random.default_rng(0).integers(0, 96, 40)
    ours = open_weights(tmp_path / "run")
    logits = compute(OurProgram(ours), ours.model, tokens)[OUTPUT]
    expected = forward(weights, params, torch.from_numpy(tokens)).numpy()
    scale = np.abs(expected).max()
    np.testing.assert_allclose(logits / scale, expected / scale, atol=1e-4)


@pytest.mark.parametrize("release", RELEASES)
def test_every_release_passes_its_check_both_ways(tmp_path, release, capfd):
    params, axis, dtype = RELEASES[release]
    whole = write_release(tmp_path / "meta", params, axis, dtype, ranks=2)
    # Logits of units, not of hundreds.
    small = {name: value * 32**-0.5 if value.ndim == 2 else value for name, value in whole.items()}
    for rank in range(2):
        path = tmp_path / "meta" / f"consolidated.{rank:02d}.pth"
        torch.save(slice_of(small, axis, rank, 2), path)
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run", "--check") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "back", "--check") == 0
    for folder in ("run", "back"):
        checks = json.loads((tmp_path / folder / "certificate.json").read_text())["checks"]
        assert checks["weights"]["identical"]
        assert checks["logits"]["reference"] == "Meta's model, in PyTorch"
        assert checks["logits"]["max_abs_logit_difference"] <= 1e-4
        assert checks["logits"]["argmax_agreement"] >= 0.999
    assert convert("check", tmp_path / "meta", tmp_path / "back") == 0


def test_another_rotation_of_the_planes_fails_the_check(tmp_path, monkeypatch):
    params, axis, _ = RELEASES["LLaMA-3"]
    write_release(tmp_path / "meta", params, axis, "float32")
    # Weights agree, for both sides are read alike; only another program can tell.
    monkeypatch.setattr("llama_jax.convert.meta.halves_of", lambda value, heads: value)
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run", "--check") == 1
    checks = json.loads((tmp_path / "run" / "certificate.json").read_text())["checks"]
    assert checks["weights"]["identical"]
    assert checks["logits"]["first_layer_that_differs"] == "model.layers.0"


def test_a_plan_of_an_import_writes_nothing(tmp_path, capfd):
    whole = write_release(tmp_path / "meta", *RELEASES["LLaMA-3"], 2)
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run", "--dry-run", "--json") == 0
    plan = json.loads(capfd.readouterr().out)
    assert plan["num_params"] == sum(value.numel() for value in whole.values())
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


@pytest.mark.parametrize("damage", ["none", "flipped", "cut", "gone"])
def test_an_export_goes_on_where_it_was(tmp_path, monkeypatch, damage):
    from llama_jax.convert import meta_export

    write_release(tmp_path / "meta", *RELEASES["LLaMA-3"], 2)
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "whole") == 0
    copy, names, limit = meta_export._copy, [], 12

    def counted(archives, ranks, weights, tensor, axis):
        if len(names) == limit:
            raise KeyboardInterrupt
        names.append(tensor.name)
        return copy(archives, ranks, weights, tensor, axis)

    with monkeypatch.context() as patch:
        patch.setattr(meta_export, "_copy", counted)
        assert convert("to-meta", tmp_path / "run", tmp_path / "back") == 130
        assert not (tmp_path / "back").exists()
        path = tmp_path / ".back.partial/result/consolidated.01.pth"
        data = bytearray(path.read_bytes())
        if damage == "flipped":
            data[len(data) // 2] ^= 1
        path.write_bytes(data[: len(data) // 2] if damage == "cut" else data)
        if damage == "gone":
            path.unlink()
        names.clear()
        limit = None
        assert convert("to-meta", tmp_path / "run", tmp_path / "back") == 0
    assert len(names) == 21 - 12 if damage == "none" else len(names) > 21 - 12
    for rank in range(2):
        name = f"consolidated.{rank:02d}.pth"
        first, second = ((tmp_path / side / name).read_bytes() for side in ("whole", "back"))
        assert first == second
    certificate = json.loads((tmp_path / "back" / "certificate.json").read_text())
    assert certificate["counts"]["tensors"] == 21


def test_a_file_is_as_torch_save_writes_it(tmp_path):
    whole = write_release(tmp_path / "meta", *RELEASES["LLaMA-3"])
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "back", "--dtype", "float32") == 0
    path = tmp_path / "back/consolidated.00.pth"
    for arguments in ({}, {"mmap": True}, {"weights_only": False}):
        loaded = torch.load(path, **arguments)
        for name, value in whole.items():
            assert torch.equal(loaded[name], value.float()), name
    with zipfile.ZipFile(path) as file:
        assert file.testzip() is None
        names = [info.filename for info in file.infolist()]
    torch.save(whole, tmp_path / "theirs.pth")
    with zipfile.ZipFile(tmp_path / "theirs.pth") as file:
        theirs = {info.filename.partition("/")[2] for info in file.infolist()}
    assert {name.partition("/")[2] for name in names} <= theirs
    reader = torch._C.PyTorchFileReader(str(path))
    assert not [n for n in reader.get_all_records() if reader.get_record_offset(n) % 64]


def test_a_plan_of_an_export_writes_nothing(tmp_path, capfd):
    write_release(tmp_path / "meta", *RELEASES["LLaMA-3"], 2)
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 0
    capfd.readouterr()
    arguments = [tmp_path / "run", tmp_path / "back", "--json"]
    assert convert("to-meta", *arguments, "--dry-run") == 0
    plan = json.loads(capfd.readouterr().out)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["meta", "run"]
    assert convert("to-meta", *arguments) == 0
    told = json.loads(capfd.readouterr().out)
    assert told["bytes"] == plan["bytes_written"] == 2 * plan["num_params"]
    assert (told["ranks"], told["dtypes"]) == (2, ["bfloat16"])
    source = json.loads((tmp_path / "back/certificate.json").read_text())["source"]
    assert source["imported"]["folder"] == str(tmp_path / "meta")


def test_parameters_of_several_dtypes_go_through_meta_and_back(tmp_path):
    params, axis, _ = RELEASES["LLaMA-3"]
    whole = write_release(tmp_path / "meta", params, axis, "bfloat16")
    mixed = {name: value.float() if "norm" in name else value for name, value in whole.items()}
    torch.save(mixed, tmp_path / "meta/consolidated.00.pth")
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "back") == 0
    loaded = torch.load(tmp_path / "back/consolidated.00.pth")
    assert {name: value.dtype for name, value in loaded.items()} == {
        name: value.dtype for name, value in mixed.items()
    }
    assert convert("check", tmp_path / "meta", tmp_path / "back") == 0


def test_a_run_of_ours_leaves_its_padding_out(tmp_path, capfd):
    write_run(tmp_path / "run")
    arguments = [tmp_path / "run", tmp_path / "meta", "--model-parallel", 2, "--check"]
    assert convert("to-meta", *arguments) == 0
    assert "64 rows that pad the vocabulary left out" in capfd.readouterr().err
    assert json.loads((tmp_path / "meta/params.json").read_text())["vocab_size"] == 320
    source = json.loads((tmp_path / "meta/certificate.json").read_text())["source"]
    assert (source["step"], source["tokens"], source["config"]["name"]) == (10, 1280, "saved")
    # What training changed is in no file that a model came with: a longer context is said anew.
    assert main(["convert", "from-meta", str(tmp_path / "meta"), str(tmp_path / "back")]) == 0
    path = tmp_path / "back/config.json"
    config = json.loads(path.read_text())
    config["model"]["max_seq_len"] = 128
    path.write_text(json.dumps(config))
    assert convert("to-meta", tmp_path / "back", tmp_path / "longer") == 0
    assert json.loads((tmp_path / "longer/params.json").read_text())["max_seq_len"] == 128


@pytest.mark.parametrize(
    ("model", "arguments", "complaint"),
    [
        (shrunk(), ["--model-parallel", 3], "--model-parallel=3 must divide heads"),
        (shrunk(), ["--model-parallel", 0], "--model-parallel=0 must divide heads"),
        (TINY, [], "model.head_dim=10 is not model.embed_dim=48 over model.num_heads=6"),
        (shrunk(rope=LinearRope(factor=4.0)), [], "has no place in Meta's layout, which knows"),
        (shrunk(rope=Llama3Rope(original_seq_len=16)), [], "has no place in Meta's layout"),
    ],
)
def test_models_that_meta_cannot_hold_are_refused(tmp_path, capfd, model, arguments, complaint):
    write_hf(tmp_path / "hf", model)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "meta", *arguments) == 2
    assert complaint in capfd.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["hf", "run"]


@pytest.mark.parametrize("mlp_dim", [49, 1, 88])
def test_a_width_of_the_mlp_that_is_odd_comes_back(tmp_path, mlp_dim):
    write_hf(tmp_path / "hf", shrunk(embed_dim=64, mlp_dim=mlp_dim, num_heads=8))
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "meta") == 0
    assert convert("check", tmp_path / "hf", tmp_path / "meta") == 0


def test_a_tied_model_goes_through_meta_and_back(tmp_path):
    model = shrunk(num_kv_heads=2, tie_embeddings=True)
    write_hf(tmp_path / "hf", model)
    assert convert("from-hf", tmp_path / "hf", tmp_path / "run") == 0
    assert convert("to-meta", tmp_path / "run", tmp_path / "meta", "--model-parallel", 2) == 0
    arguments = [str(tmp_path / "meta"), str(tmp_path / "again")]
    assert main(["convert", "from-meta", *arguments]) == 0
    assert convert("check", tmp_path / "hf", tmp_path / "again") == 0


class Malicious:
    def __reduce__(self):
        return (open, ("executed", "w"))


def test_a_malicious_pickle_is_never_executed(tmp_path, monkeypatch, capfd):
    monkeypatch.chdir(tmp_path)
    write_release(tmp_path / "meta", *RELEASES["LLaMA-3"])
    path = tmp_path / "meta" / "consolidated.00.pth"
    torch.save({"tok_embeddings.weight": Malicious()}, path)
    for data in (None, pickle.dumps(Malicious())):
        if data is not None:
            path.write_bytes(data)
        assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 2
        assert "Nothing in it was executed" in capfd.readouterr().err
        assert not (tmp_path / "executed").exists()
    with zipfile.ZipFile(path, "w") as file:
        file.writestr("archive/data.pkl", pickle.dumps(Malicious()))
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 2
    assert not (tmp_path / "executed").exists()
    assert not (tmp_path / "run").exists()
    # The file is as bad as it looks: Python's own reader does execute it.
    pickle.loads(pickle.dumps(Malicious())).close()
    assert (tmp_path / "executed").exists()


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"layers.0.attention.wq.bias": torch.zeros(32)}, r"wq\.bias .*has no place"),
        ({"norm.weight": None}, r"norm\.weight is missing"),
        ({"norm.weight": torch.zeros(31)}, r"norm\.weight has the shape \(31,\)"),
        ({"norm.weight": torch.full((32,), torch.nan)}, r"norm\.weight has a value that is NaN"),
        ({"norm.weight": torch.zeros(32, dtype=torch.int8)}, r"norm\.weight is int8"),
    ],
)
def test_tensors_that_do_not_fit_are_refused_by_name(tmp_path, capfd, change, complaint):
    import re

    params, axis, _ = RELEASES["LLaMA-3"]
    whole = write_release(tmp_path / "meta", params, axis, "float32")
    changed = {name: value for name, value in (whole | change).items() if value is not None}
    torch.save(changed, tmp_path / "meta" / "consolidated.00.pth")
    assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 2
    message = capfd.readouterr().err
    assert re.search(complaint, message), message
    assert [path.name for path in tmp_path.iterdir()] == ["meta"]


def test_params_that_are_not_understood_are_refused_by_name(tmp_path, capfd):
    write_release(tmp_path / "meta", *RELEASES["LLaMA-3"])
    path = tmp_path / "meta" / "params.json"
    for change, complaint in {
        "moe_args": "moe_args={} is a parameter that is not handled",
        "vocab_size": "vocab_size={} contradicts the 96 rows",
    }.items():
        path.write_text(json.dumps(RELEASES["LLaMA-3"][0] | {change: {}}))
        assert convert("from-meta", tmp_path / "meta", tmp_path / "run") == 2
        assert complaint in capfd.readouterr().err
