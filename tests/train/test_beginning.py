"""Where a run begins: nothing it did is forgotten, and no other run is continued by mistake."""

import json

import jax.numpy as jnp
import pytest

from llama_jax.checkpoint import Checkpointer, CheckpointError
from llama_jax.config import CheckpointConfig
from llama_jax.train.beginning import Beginning, Origin, find_beginning, keep_origin, parse_origin
from tests.train.tiny_run import tiny_config

CONFIG = tiny_config(train__num_steps=40)  # 8 rows of 16 tokens a step


@pytest.fixture
def run_of(tmp_path):
    """Makes a run's folder with checkpoints of given steps and sample counters."""

    def make(name, steps=(), first_sample=0):
        folder = tmp_path / name
        folder.mkdir(exist_ok=True)
        keep_all = CheckpointConfig(keep_last=9)
        with Checkpointer(folder / "checkpoints", keep_all) as checkpointer:
            for step, samples in dict(steps).items():
                meta = {
                    "step": step,
                    "samples": samples,
                    "tokens": samples * 16,
                    "first_sample": first_sample,
                    "config": {"data": {"seq_len": 16}},
                }
                checkpointer.save(step, {"x": jnp.zeros(2)}, meta)
        return folder

    return make


def test_a_new_run_begins_at_nothing(run_of):
    assert find_beginning(run_of("new"), CONFIG, None) == Beginning()


def test_a_run_resumes_at_its_newest_checkpoint(run_of):
    begin = find_beginning(run_of("run", {5: 40, 10: 80}), CONFIG, None)
    assert (begin.step, begin.samples, begin.tokens, begin.first_sample) == (10, 80, 1280, 0)
    assert begin.resumed
    assert begin.samples_at(12, CONFIG) == 96 and begin.tokens_at(12, CONFIG) == 1536


def cut(folder, step):
    state = (folder / f"checkpoints/{step}/state").rglob("*")
    victim = max((path for path in state if path.is_file()), key=lambda path: path.stat().st_size)
    victim.write_bytes(victim.read_bytes()[:-1])
    return victim.name


def test_a_run_whose_newest_checkpoints_are_damaged_resumes_at_the_newest_good_one(run_of):
    folder = run_of("run", {5: 40, 10: 80, 15: 120})
    name = cut(folder, 15)
    begin = find_beginning(folder, CONFIG, None)
    assert begin.resumed and (begin.step, begin.samples) == (10, 80)
    assert [step for step, _ in begin.damaged] == [15] and name in begin.damaged[0][1]
    (folder / "checkpoints/10/manifest.json").unlink()  # then it is no complete one any more
    begin = find_beginning(folder, CONFIG, None)
    assert begin.step == 5 and [step for step, _ in begin.damaged] == [15, 10]


def test_a_run_whose_checkpoints_are_all_damaged_is_refused_and_not_begun_anew(run_of):
    folder = run_of("run", {5: 40, 10: 80})
    names = [cut(folder, step) for step in (5, 10)]
    with pytest.raises(CheckpointError, match=r"step 10: .*bytes") as refusal:
        find_beginning(folder, CONFIG, None)
    assert "step 5: " in str(refusal.value) and all(name in str(refusal.value) for name in names)


def test_a_branch_begins_where_the_other_run_stood(run_of):
    origin = parse_origin(f"{run_of('trunk', {10: 640, 20: 1280})}@10")
    begin = find_beginning(run_of("branch"), CONFIG, origin)
    # The other run took 64 rows a step; this one goes on from its sample with 8.
    assert (begin.step, begin.samples, begin.first_sample) == (10, 640, 640)
    assert not begin.resumed and begin.samples_at(11, CONFIG) == 648


def test_a_branch_with_longer_rows_goes_on_at_the_same_number_of_tokens(run_of):
    longer = tiny_config(train__num_steps=40, model__max_seq_len=24, data__seq_len=24)
    begin = find_beginning(run_of("branch"), longer, parse_origin(str(run_of("trunk", {10: 80}))))
    # 80 rows of 16 are 53 rows of 24 and a part of another, which is not read again.
    assert (begin.samples, begin.first_sample, begin.tokens) == (54, 54, 1280)
    assert begin.tokens_at(11, longer) == 1280 + 8 * 24


def test_the_counter_follows_a_batch_that_grows(run_of):
    ramp = tiny_config(train__num_steps=40, train__batch_ramp=((8, 16), (12, 32)))
    begin = find_beginning(run_of("run", {10: 96}), ramp, None)
    assert [begin.samples_at(step, ramp) for step in (9, 10, 11, 13)] == [80, 96, 112, 160]
    assert begin.tokens_at(13, ramp) == 160 * 16


def test_a_branch_remembers_where_it_came_from(run_of):
    trunk, branch = run_of("trunk", {10: 80}), run_of("branch")
    origin = parse_origin(str(trunk))
    assert origin == Origin(run_dir=str(trunk), step=10)
    keep_origin(branch, origin)
    # Killed before its first checkpoint, and started again without being told.
    assert find_beginning(branch, CONFIG, None) == find_beginning(branch, CONFIG, origin)
    assert find_beginning(branch, CONFIG, None).step == 10
    # With a checkpoint of its own, it goes on from there, and still knows its first sample.
    run_of("branch", {15: 120}, first_sample=80)
    begin = find_beginning(branch, CONFIG, origin)
    assert begin.resumed and (begin.step, begin.first_sample) == (15, 80)
    assert begin.origin == origin


def test_another_origin_is_refused(run_of):
    trunk, branch, plain = run_of("trunk", {10: 80, 20: 160}), run_of("b"), run_of("p", {5: 40})
    keep_origin(branch, parse_origin(f"{trunk}@10"))
    with pytest.raises(ValueError, match=r"init_from=.*trunk@20: .* began from .*trunk@10"):
        find_beginning(branch, CONFIG, parse_origin(f"{trunk}@20"))
    with pytest.raises(ValueError, match=r"began from its seed"):
        find_beginning(plain, CONFIG, parse_origin(f"{trunk}@20"))


def test_an_origin_that_is_not_there_is_refused(run_of):
    with pytest.raises(ValueError, match="has no checkpoint"):
        parse_origin(str(run_of("empty")))
    with pytest.raises(ValueError, match=r"there are: 10, 20"):
        parse_origin(f"{run_of('trunk', {10: 80, 20: 160})}@15")


def test_a_branch_must_have_something_left_to_do(run_of):
    origin = parse_origin(str(run_of("trunk", {40: 320})))
    with pytest.raises(ValueError, match=r"train\.num_steps=40 must exceed step 40"):
        find_beginning(run_of("branch"), CONFIG, origin)


def test_the_origin_is_readable_by_people(run_of):
    keep_origin(folder := run_of("branch"), Origin(run_dir="/runs/trunk", step=7))
    assert json.loads((folder / "origin.json").read_text()) == {
        "run_dir": "/runs/trunk",
        "step": 7,
        "data_from_start": False,
    }
