"""`--optimizer`: AdamW's moments leave and come back bit for bit, or are refused by name."""

import dataclasses
import json
import re
import shutil
from pathlib import Path

import jax
import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from llama_jax.checkpoint import Checkpointer
from llama_jax.checkpoint.names import named_arrays
from llama_jax.cli.main import main
from llama_jax.cli.run_reader import read_config
from llama_jax.config import (
    AdamW,
    ComputeConfig,
    Cosine,
    DataConfig,
    MeshConfig,
    ModelConfig,
    Muon,
    MuP,
    RunConfig,
    TrainConfig,
)
from llama_jax.convert import moments
from llama_jax.convert.certificate import find_changed_files
from llama_jax.convert.mapping import tensors_of, to_theirs
from llama_jax.data.sentencepiece import train_sentencepiece
from llama_jax.model import abstract_params
from llama_jax.recipe import to_json
from llama_jax.sharding import make_mesh, use_layout
from llama_jax.train.optimizer import decay_mask, make_optimizer
from llama_jax.train.state import abstract_state
from tests.convert.hf_folder import TINY, shrunk

STEP, UPDATES = 7, 6
RULE = AdamW(peak_lr=1e-3, beta2=0.97, eps=1e-6, weight_decay=0.2, clip_norm=0.5)
NORM = "model.norm.weight"
DOCS = Path(__file__).parents[2] / "docs/optimizer_state.md"


def run_of(model: ModelConfig, optimizer: AdamW | Muon = RULE) -> RunConfig:
    return RunConfig(
        name="tiny",
        model=model,
        data=DataConfig(seq_len=32),
        train=TrainConfig(num_steps=10, batch_size=4),
        optimizer=optimizer,
        schedule=Cosine(warmup_steps=2),
        compute=ComputeConfig(dtype="float32"),
    )


def write_run(folder: Path, config: RunConfig) -> dict[str, np.ndarray]:
    """Writes a run's folder with one checkpoint of random values; returns them by name."""
    rng = np.random.default_rng(0)

    def draw(path, leaf):
        name = jax.tree_util.keystr(path)
        if leaf.dtype == np.int32:
            return np.int32(UPDATES if "count" in name else STEP)
        values = rng.standard_normal(leaf.shape, dtype=np.float32)
        return (np.abs(values) if ".nu" in name else values).astype(leaf.dtype)

    folder.mkdir()
    (folder / "config.json").write_text(to_json(config))
    with (
        use_layout(make_mesh(MeshConfig(), devices=jax.local_devices()[:1])),
        Checkpointer(folder / "checkpoints") as checkpointer,
    ):
        state = jax.tree_util.tree_map_with_path(draw, abstract(config))
        counters = {"samples": 4 * STEP + 3, "first_sample": 3, "tokens": 128 * STEP}
        checkpointer.save(STEP, jax.tree.map(jax.numpy.asarray, state), {"step": STEP} | counters)
    return {name: np.asarray(array) for name, array in named_arrays(state).items()}


def abstract(config: RunConfig):
    _, params = abstract_params(config.model, config.compute)
    return abstract_state(params, make_optimizer(config.optimizer))


def read_run(folder: Path) -> tuple[dict[str, np.ndarray], dict]:
    """Arrays of a run's newest checkpoint, as training restores them, and what it says of them."""
    with (
        use_layout(make_mesh(MeshConfig(), devices=jax.local_devices()[:1])),
        Checkpointer(folder / "checkpoints", read_only=True) as checkpointer,
    ):
        state, meta = checkpointer.restore(
            checkpointer.latest_step(), abstract(read_config(folder))
        )
    return {name: np.asarray(array) for name, array in named_arrays(state).items()}, meta


def convert(*arguments) -> int:
    return main(["convert", *map(str, arguments)])


def export(run: Path, out: Path, *flags) -> int:
    return convert("to-hf", run, out, "--optimizer", "--without-tokenizer", *flags)


@pytest.fixture(scope="module")
def exported(tmp_path_factory) -> Path:
    """A folder with `run` and what it was exported as, `hf`; not to be changed."""
    folder = tmp_path_factory.mktemp("exported")
    write_run(folder / "run", run_of(TINY))
    assert export(folder / "run", folder / "hf") == 0
    return folder


@pytest.fixture
def hf(tmp_path, exported) -> Path:
    """A copy of the exported folder, without certificate, which would find changes first."""
    shutil.copytree(exported / "hf", tmp_path / "hf")
    (tmp_path / "hf" / "certificate.json").unlink()
    return tmp_path / "hf"


@pytest.mark.parametrize("model", [TINY, shrunk(tie_embeddings=True)], ids=["odd heads", "tied"])
def test_a_training_state_comes_back_bit_for_bit(tmp_path, model):
    saved = write_run(tmp_path / "run", run_of(model))
    # Several files for each moment, and layers copied as they lie the second time.
    assert export(tmp_path / "run", tmp_path / "hf", "--max-shard-gigabytes", "2e-5") == 0
    assert len(list((tmp_path / "hf/optimizer/exp_avg").glob("*.safetensors"))) > 1
    assert convert("from-hf", tmp_path / "hf", tmp_path / "back", "--optimizer") == 0
    assert export(tmp_path / "back", tmp_path / "again") == 0
    assert convert("from-hf", tmp_path / "again", tmp_path / "twice", "--optimizer") == 0
    for folder in ("back", "twice"):
        arrays, meta = read_run(tmp_path / folder)
        assert arrays.keys() == saved.keys()
        for name, value in saved.items():
            np.testing.assert_array_equal(arrays[name], value, err_msg=name)
        assert (meta["step"], meta["samples"], meta["first_sample"]) == (STEP, 4 * STEP + 3, 3)
        assert meta["tokens"] == 128 * STEP
        assert read_config(tmp_path / folder) == run_of(model)


def test_moments_lie_as_the_weights_do(exported):
    saved, _ = read_run(exported / "run")
    for theirs, ours in {"exp_avg": "mu", "exp_avg_sq": "nu"}.items():
        found = load_file(exported / "hf/optimizer" / theirs / "model.safetensors")
        assert found.keys() == load_file(exported / "hf/model.safetensors").keys()
        for tensor in tensors_of(TINY):
            array = saved[f"opt_state.1.{ours}.{tensor.pair.ours}"]
            expected = to_theirs(tensor, array if tensor.layer < 0 else array[tensor.layer])
            np.testing.assert_array_equal(found[tensor.name], expected, err_msg=tensor.name)


def test_what_pytorch_needs_is_told(exported):
    said = json.loads((exported / "hf/optimizer/optimizer.json").read_text())
    assert said["updates"] == UPDATES and said["clip_norm"] == 0.5
    matrices, norms = said["groups"]
    assert (matrices["weight_decay"], norms["weight_decay"]) == (0.2, 0.0)
    assert matrices["betas"] == norms["betas"] == [0.9, 0.97] and norms["eps"] == 1e-6
    # Update 8 of 10: a cosine from 1e-3 to a tenth, 5 of 8 of the way down.
    assert matrices["lr"] == pytest.approx(1e-4 + 0.9e-3 * (1 + np.cos(np.pi * 5 / 8)) / 2)
    assert {*matrices["names"], *norms["names"]} == {t.name for t in tensors_of(TINY)}


def test_weights_decay_in_pytorch_that_decay_here(one_device):
    _, params = abstract_params(TINY, ComputeConfig())
    here = named_arrays(decay_mask(params))
    assert {tensor.pair.ours: moments.decays(tensor) for tensor in tensors_of(TINY)} == here


def test_rows_that_pad_the_vocabulary_leave_and_come_back_as_zeros(tmp_path):
    model = shrunk(vocab_size=384)
    saved = write_run(tmp_path / "run", run_of(model))
    text = ["the quick brown fox jumps over the lazy dog 0123456789"] * 20
    train_sentencepiece(text, tmp_path / "run/tokenizer.model", vocab_size=300)
    assert export(tmp_path / "run", tmp_path / "hf") == 0
    rows = load_file(tmp_path / "hf/optimizer/exp_avg/model.safetensors")["lm_head.weight"]
    np.testing.assert_array_equal(rows, saved["opt_state.1.mu.output.table"][:300])
    arguments = ["--optimizer", "--pad-vocab-to-multiple", 128]
    assert convert("from-hf", tmp_path / "hf", tmp_path / "back", *arguments) == 0
    arrays, _ = read_run(tmp_path / "back")
    table = arrays["opt_state.1.nu.output.table"]
    np.testing.assert_array_equal(table[:300], saved["opt_state.1.nu.output.table"][:300])
    assert table.shape == (384, 32) and not table[300:].any()


def test_moments_in_bfloat16_are_widened_and_come_back_in_float32(tmp_path):
    rule = dataclasses.replace(RULE, state_dtype="bfloat16")
    saved = write_run(tmp_path / "run", run_of(TINY, optimizer=rule))
    assert saved["opt_state.1.mu.blocks.mlp.up"].dtype == ml_dtypes.bfloat16
    assert export(tmp_path / "run", tmp_path / "hf") == 0
    assert convert("from-hf", tmp_path / "hf", tmp_path / "back", "--optimizer") == 0
    assert read_config(tmp_path / "back").optimizer == RULE
    for name, value in read_run(tmp_path / "back")[0].items():
        np.testing.assert_array_equal(value, saved[name].astype(value.dtype), err_msg=name)


def test_an_import_without_moments_begins_afresh(tmp_path, hf):
    assert convert("from-hf", hf, tmp_path / "back") == 0
    arrays, meta = read_run(tmp_path / "back")
    assert meta["step"] == arrays["opt_state.1.count"] == 0
    assert not arrays["opt_state.1.mu.blocks.mlp.up"].any()


def test_updates_made_elsewhere_consume_the_rows_that_were_next(tmp_path, hf):
    change_facts(hf, updates=UPDATES + 2)
    assert convert("from-hf", hf, tmp_path / "back", "--optimizer") == 0
    arrays, meta = read_run(tmp_path / "back")
    assert (meta["step"], arrays["step"], arrays["opt_state.1.count"]) == (9, 9, UPDATES + 2)
    assert (meta["samples"], meta["tokens"]) == (4 * 9 + 3, 128 * 9)


def test_moments_of_a_run_that_was_never_ours_count_their_updates(tmp_path, hf):
    (hf / "training_config.json").unlink()
    change_facts(hf, run=None)
    assert convert("from-hf", hf, tmp_path / "back", "--optimizer") == 0
    _, meta = read_run(tmp_path / "back")
    assert (meta["step"], meta["samples"], meta["tokens"]) == (UPDATES, 0, 0)
    optimizer = read_config(tmp_path / "back").optimizer
    assert isinstance(optimizer, AdamW)
    assert (optimizer.beta2, optimizer.eps, optimizer.weight_decay) == (0.97, 1e-6, 0.2)


def test_the_certificate_covers_every_file_and_tensor(tmp_path, exported):
    shutil.copytree(exported / "hf", tmp_path / "hf")
    certificate = json.loads((tmp_path / "hf/certificate.json").read_text())
    tensors = certificate["optimizer"]["tensors"]
    assert tensors.keys() == {"exp_avg", "exp_avg_sq"}
    assert tensors["exp_avg"].keys() == certificate["tensors"].keys()
    assert find_changed_files(tmp_path / "hf") == []
    path = tmp_path / "hf/optimizer/exp_avg_sq/model.safetensors"
    path.write_bytes(path.read_bytes()[:-4] + np.float32(1).tobytes())
    assert [line.split()[0] for line in find_changed_files(tmp_path / "hf")] == [
        "optimizer/exp_avg_sq/model.safetensors"
    ]
    assert convert("from-hf", tmp_path / "hf", tmp_path / "back", "--optimizer") == 2
    assert not (tmp_path / "back").exists()


@pytest.mark.parametrize(
    ("config", "flags", "complaint"),
    [
        pytest.param(run_of(TINY, Muon(peak_lr=1e-3)), (), "optimizer=Muon", id="Muon"),
        pytest.param(
            run_of(TINY, dataclasses.replace(RULE, state_dtype="int8")),
            (),
            "optimizer.state_dtype='int8'",
            id="int8",
        ),
        pytest.param(
            dataclasses.replace(
                run_of(TINY), parameterisation=MuP(base_embed_dim=8, base_head_dim=4)
            ),
            (),
            "parameterisation=MuP",
            id="muP",
        ),
        pytest.param(run_of(TINY), ("--dtype", "bfloat16"), "keep their float32", id="rounded"),
        pytest.param(
            run_of(shrunk()), (), r"opt_state.1.mu.\S+ .* has the shape", id="other moments"
        ),
    ],
)
def test_a_state_that_pytorch_cannot_continue_is_not_exported(
    tmp_path, capfd, exported, config, flags, complaint
):
    (tmp_path / "run").mkdir()
    (tmp_path / "run/checkpoints").symlink_to(exported / "run/checkpoints")
    (tmp_path / "run/config.json").write_text(to_json(config))
    assert export(tmp_path / "run", tmp_path / "hf", *flags) == 2
    assert re.search(complaint, capfd.readouterr().err)
    assert [path.name for path in tmp_path.iterdir()] == ["run"]


def change_facts(hf: Path, **changes) -> None:
    path = hf / "optimizer/optimizer.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_group(hf: Path, index: int, **changes) -> None:
    groups = json.loads((hf / "optimizer/optimizer.json").read_text())["groups"]
    groups[index] |= changes
    change_facts(hf, groups=groups)


def change_tensor(hf: Path, moment: str, change) -> None:
    path = hf / "optimizer" / moment / "model.safetensors"
    tensors = load_file(path)
    change(tensors)
    save_file(tensors, path)


def put(value):
    def change(tensors) -> None:
        tensors[NORM] = tensors[NORM].copy()
        tensors[NORM][3] = value

    return change


DAMAGES = {
    "absent": (lambda hf: shutil.rmtree(hf / "optimizer"), "optimizer.json is missing"),
    "no first moments": (lambda hf: shutil.rmtree(hf / "optimizer/exp_avg"), "exp_avg.* neither"),
    "a tensor is missing": (
        lambda hf: change_tensor(hf, "exp_avg", lambda t: t.pop(NORM)),
        f"exp_avg: the tensor {NORM} is missing",
    ),
    "an unknown tensor": (
        lambda hf: change_tensor(hf, "exp_avg", lambda t: t.update(bias=t[NORM])),
        "exp_avg: the tensor bias .* has no place",
    ),
    "wrong shape": (
        lambda hf: change_tensor(hf, "exp_avg_sq", lambda t: t.update({NORM: t[NORM][1:]})),
        rf"exp_avg_sq: {NORM} has the shape \(47,\)",
    ),
    "half precision": (
        lambda hf: change_tensor(hf, "exp_avg", lambda t: t.update({NORM: np.float16(t[NORM])})),
        f"{NORM} is float16; .* save them with .float",
    ),
    "NaN": (lambda hf: change_tensor(hf, "exp_avg", put(np.nan)), f"{NORM} has a value that is Na"),
    "a negative square": (
        lambda hf: change_tensor(hf, "exp_avg_sq", put(-1e-9)),
        f"{NORM} has a value below zero",
    ),
    "unknown fact": (lambda hf: change_facts(hf, amsgrad=True), "amsgrad is not handled"),
    "other format": (lambda hf: change_facts(hf, format=2), "format=2 must be 1"),
    "no count": (lambda hf: change_facts(hf, updates=1.5), "updates=1.5 must be a whole number"),
    "fewer updates than before": (lambda hf: change_facts(hf, updates=2), "must not be below run"),
    "beyond the end": (lambda hf: change_facts(hf, updates=10), "train.num_steps=10; .* step 11"),
    "no groups": (lambda hf: change_facts(hf, groups=[]), "no group names model.embed_tokens"),
    "a weight twice": (
        lambda hf: change_group(hf, 1, names=[NORM, NORM]),
        f"{NORM}', which is in two of them",
    ),
    "an unknown weight": (
        lambda hf: change_group(hf, 1, names=["bias"]),
        "'bias', which is no weight of this model",
    ),
    "norms that decay": (
        lambda hf: change_group(hf, 1, weight_decay=0.2),
        "weight_decay=0.2 of .* must be 0: .* decays no norm",
    ),
    "two rules": (lambda hf: change_group(hf, 1, betas=[0.9, 0.5]), "beta2=0.5 of .* must be 0.97"),
    "no rule": (lambda hf: change_group(hf, 0, eps=None), "eps=None must be a number"),
    "a run of other counters": (lambda hf: change_facts(hf, run={"step": 7}), "run must have exac"),
}


@pytest.mark.parametrize("damage", DAMAGES)
def test_moments_that_are_not_understood_in_full_are_refused_by_name(tmp_path, capfd, hf, damage):
    change, complaint = DAMAGES[damage]
    change(hf)
    assert convert("from-hf", hf, tmp_path / "back", "--optimizer") == 2
    message = capfd.readouterr().err
    assert re.search(complaint, message), message
    assert [path.name for path in tmp_path.iterdir()] == ["hf"]


def test_the_card_and_the_guide_have_the_code_that_is_tested(exported):
    assert moments.LOADER in (exported / "hf/README.md").read_text()
    guide = DOCS.read_text()
    assert moments.LOADER in guide and moments.WRITER in guide
