"""Recipes give the published shapes, and survive the way to JSON and back."""

import dataclasses
import json
from typing import NamedTuple

import pytest

from llama_jax.config import AdamW, BuildConfig, Cosine, Linear, LinearRope, Muon, RunConfig
from llama_jax.flops import count_params
from llama_jax.recipe import differences, from_json, list_recipes, load_recipe, to_json
from llama_jax.refusal import is_refusal

# Model cards and papers; the rungs of the ladder and the demo: counted by hand.
PUBLISHED_PARAMS = {
    "llama1_7b": 6.7e9,
    "llama1_13b": 13.0e9,
    "llama1_33b": 32.5e9,
    "llama1_65b": 65.2e9,
    "llama2_7b": 6.7e9,
    "llama2_13b": 13.0e9,
    "llama2_34b": 33.7e9,
    "llama2_70b": 69.0e9,
    "llama3_8b": 8.0e9,
    "llama3_70b": 70.6e9,
    "llama3_1_8b": 8.0e9,
    "llama3_1_70b": 70.6e9,
    "llama3_1_405b": 405.9e9,
    "llama3_2_1b": 1.24e9,
    "llama3_2_3b": 3.21e9,
}
M = 1 << 20


class Training(NamedTuple):
    """As papers and model cards have it; what they leave open is LLaMA-2's, as recipes say."""

    tokens: float
    peak_lr: float
    warmup_steps: int = 2_000
    final_fraction: float = 0.1
    batch_tokens: tuple[int, ...] = (4 * M,)
    eps: float = 1e-5


PUBLISHED_TRAINING = {
    # Touvron et al. 2023, arXiv:2302.13971, section 2.3; the paper has no epsilon.
    "llama1_7b": Training(1.0e12, 3e-4, eps=1e-8),
    "llama1_13b": Training(1.0e12, 3e-4, eps=1e-8),
    "llama1_33b": Training(1.4e12, 1.5e-4, eps=1e-8),
    "llama1_65b": Training(1.4e12, 1.5e-4, eps=1e-8),
    # Touvron et al. 2023, arXiv:2307.09288, section 2.2.
    "llama2_7b": Training(2.0e12, 3e-4),
    "llama2_13b": Training(2.0e12, 3e-4),
    "llama2_34b": Training(2.0e12, 1.5e-4),
    "llama2_70b": Training(2.0e12, 1.5e-4),
    # Model cards, and Llama Team 2024, arXiv:2407.21783, section 3.4.1.
    "llama3_8b": Training(15e12, 3e-4),
    "llama3_70b": Training(15e12, 1.5e-4),
    "llama3_1_8b": Training(15e12, 3e-4),
    "llama3_1_70b": Training(15e12, 1.5e-4),
    "llama3_1_405b": Training(15.6e12, 8e-5, 8_000, 0.01, (4 * M, 8 * M, 16 * M)),
    "llama3_2_1b": Training(9e12, 3e-4),
    "llama3_2_3b": Training(9e12, 3e-4),
}
LLAMA1_MIXTURE = {
    "common_crawl": 0.67,
    "c4": 0.15,
    "github": 0.045,
    "wikipedia": 0.045,
    "books": 0.045,
    "arxiv": 0.025,
    "stack_exchange": 0.02,
}


@pytest.mark.parametrize(("name", "published"), PUBLISHED_PARAMS.items())
def test_a_recipe_has_the_published_number_of_parameters(name, published):
    # Cards round to two or three digits: 65.2B is printed for 65.29B.
    assert count_params(load_recipe(name).model).total == pytest.approx(published, rel=6e-3)


@pytest.mark.parametrize(("name", "published"), PUBLISHED_TRAINING.items())
def test_a_recipe_trains_as_published(name, published):
    run = load_recipe(name)
    assert run.tokens_before(run.train.num_steps) == pytest.approx(published.tokens, rel=1e-5)
    assert tuple(rows * run.data.seq_len for _, rows in run.train.stages) == published.batch_tokens
    assert run.optimizer == AdamW(
        peak_lr=published.peak_lr,
        beta1=0.9,
        beta2=0.95,
        eps=published.eps,
        weight_decay=0.1,
        clip_norm=1.0,
    )
    assert run.schedule == Cosine(
        warmup_steps=published.warmup_steps, final_fraction=published.final_fraction
    )
    assert dict(run.data.mixture) == (LLAMA1_MIXTURE if name.startswith("llama1") else {})


def test_every_published_model_has_a_recipe_and_a_row_here():
    published = {name for name in list_recipes() if name.startswith("llama")}
    assert PUBLISHED_TRAINING.keys() == PUBLISHED_PARAMS.keys() == published


def test_the_largest_recipe_grows_its_batch_as_published():
    run = load_recipe("llama3_1_405b")
    batches = [rows * run.data.seq_len for _, rows in run.train.stages]
    assert batches == [4 << 20, 8 << 20, 16 << 20]
    grows_at = [run.tokens_before(steps.start) for steps, _ in run.train.stages[1:]]
    assert grows_at == pytest.approx([252e6, 2.87e12], rel=2e-3)


@pytest.mark.parametrize("name", [name for name in list_recipes() if name.startswith("ladder")])
def test_a_rung_has_its_size_and_twenty_tokens_a_parameter(name):
    run = load_recipe(name)
    params = count_params(run.model).total
    assert params == pytest.approx(float(name.split("_")[1].rstrip("m")) * 1e6, rel=0.11)
    assert run.tokens_before(run.train.num_steps) == pytest.approx(20 * params, rel=0.02)


@pytest.mark.parametrize("name", list_recipes())
def test_a_saved_config_is_the_recipe_itself(name, tmp_path):
    run = load_recipe(name)
    assert run.name == name
    saved = tmp_path / "config.json"
    saved.write_text(to_json(run))
    assert load_recipe(str(saved)) == run


@pytest.mark.parametrize("name", list_recipes(BuildConfig))
def test_a_saved_build_is_the_recipe_itself(name):
    build = load_recipe(name, BuildConfig)
    assert from_json(to_json(build), BuildConfig) == build


def test_every_choice_of_class_survives_the_way_to_json_and_back():
    run = load_recipe("demo")
    run = dataclasses.replace(
        run,
        optimizer=Muon(peak_lr=1e-3),
        schedule=Linear(warmup_steps=1),
        model=dataclasses.replace(run.model, rope=LinearRope(factor=2.0)),
        data=dataclasses.replace(run.data, mixture=(("a", 0.25), ("b", 0.75))),
        train=dataclasses.replace(run.train, batch_ramp=((10, 32), (20, 64))),
    )
    assert from_json(to_json(run)) == run


@pytest.mark.parametrize(
    ("edit", "complaint"),
    [
        (lambda d: d["model"].update(embed_dm=3), r"embed_dm is no field .* mean embed_dim\?"),
        (lambda d: d["model"].pop("embed_dim"), r"config\.model lacks embed_dim"),
        (lambda d: d["model"].update(embed_dim="3"), r"embed_dim='3' must be of type int"),
        (lambda d: d["model"].update(num_layers=True), r"num_layers=True must be of type int"),
        (lambda d: d["optimizer"].update(type="Adam"), r"optimizer\.type='Adam' must be one of"),
        (lambda d: d["model"].update(num_kv_heads=3), r"num_kv_heads=3 must divide"),
        (lambda d: d["data"].update(mixture=[["a"]]), r"mixture\[0\] must have 2 entries, got 1"),
        (lambda d: d.update(train=3), r"config\.train must be an object"),
    ],
)
def test_json_that_is_no_config_is_refused_by_name(edit, complaint):
    data = json.loads(to_json(load_recipe("demo")))
    edit(data)
    with pytest.raises(ValueError, match=complaint):
        from_json(json.dumps(data))


@pytest.mark.parametrize(
    ("reference", "complaint"),
    [
        ("llama2_7", r"Did you mean llama2_7b"),
        ("nowhere/recipe.py", r"there is no such file"),
        ("xyz", r"There are: demo"),
    ],
)
def test_an_unknown_recipe_is_refused_with_a_hint(reference, complaint):
    with pytest.raises(ValueError, match=complaint):
        load_recipe(reference)


def test_a_file_that_gives_no_run_is_refused(tmp_path):
    (empty := tmp_path / "empty.py").write_text("x = 1\n")
    with pytest.raises(ValueError, match=r"must define `def config\(\) -> RunConfig`"):
        load_recipe(str(empty))
    (wrong := tmp_path / "wrong.py").write_text("def config():\n    return 1\n")
    with pytest.raises(ValueError, match=r"gives a int; this command needs a RunConfig"):
        load_recipe(str(wrong))


MINE = """
import dataclasses
from llama_jax.config import *
from llama_jax.recipe import load_recipe

def config():
    run = load_recipe("demo")
    change = dataclasses.replace
    {change}
    return run
"""


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        pytest.param(
            "run = change(run, train=change(run.train, num_stepz=3))",
            r"mine\.py', line 9: TrainConfig\.num_stepz is no field of TrainConfig\. "
            r"Did you mean num_steps\?",
            id="a misspelt field",
        ),
        pytest.param(
            "run = change(run, train=change(run.train, num_steps='3'))",
            r"line 9: TrainConfig\.num_steps='3' must be of type int",
            id="text for a number",
        ),
        pytest.param(
            "run = change(run, data='tokens/')",
            r"line 9: RunConfig\.data must be an object with the fields of DataConfig",
            id="text for a part",
        ),
        pytest.param(
            "run = change(run, model=change(run.model, embed_dim=128.5))",
            r"config\.model\.embed_dim=128\.5 must be of type int",
            id="a number that is not whole",
        ),
        pytest.param(
            "run = change(run, optimizer=run.schedule)",
            r"config\.optimizer\.type='\w+' must be one of AdamW, Muon",
            id="another class",
        ),
        pytest.param(
            "run = change(run, model=change(run.model, num_kv_heads=3))",
            r"^model\.num_kv_heads=3 must divide",
            id="a rule of the config",
        ),
        pytest.param("run = run.modl", r"line 9: AttributeError: .*modl", id="a wrong name"),
        pytest.param("run = int('x')", r"line 9: ValueError: invalid literal", id="a bug"),
        pytest.param("run = (", r"line 9: SyntaxError: '\(' was never closed", id="no Python"),
        pytest.param("import lama_jax", r"line 9: ModuleNotFoundError: No module", id="an import"),
    ],
)
def test_a_mistake_in_a_recipe_is_told_in_a_line(tmp_path, change, complaint):
    (mine := tmp_path / "mine.py").write_text(MINE.format(change=change))
    with pytest.raises(ValueError, match=complaint) as refusal:
        load_recipe(str(mine))
    assert is_refusal(refusal.value)


def test_a_recipe_may_give_whole_numbers_and_lists_as_json_does(tmp_path):
    change = "run = change(run, data=change(run.data, mixture=[('a', 1), ('b', 2)]))"
    (mine := tmp_path / "mine.py").write_text(MINE.format(change=change))
    run = load_recipe(str(mine))
    assert run.data.mixture == (("a", 1.0), ("b", 2.0))
    assert from_json(to_json(run)) == run


def test_torn_json_is_refused():
    with pytest.raises(ValueError, match=r"no valid JSON"):
        from_json(to_json(load_recipe("demo"))[:100], RunConfig)


def test_differences_name_each_leaf():
    run = load_recipe("demo")
    other = dataclasses.replace(
        run,
        train=dataclasses.replace(run.train, batch_size=run.train.batch_size + 1),
        optimizer=Muon(peak_lr=run.optimizer.peak_lr, eps=1e-5),
    )
    lines = differences(run, other)
    assert f"train.batch_size: {run.train.batch_size} -> {run.train.batch_size + 1}" in lines
    assert "optimizer.type: AdamW -> Muon" in lines
    assert "optimizer.momentum: (absent) -> 0.95" in lines
    assert not differences(run, run)


def test_differences_inside_a_list_of_sources_name_the_source_by_its_number():
    mix = load_recipe("llama1_mix", BuildConfig)
    moved = dataclasses.replace(mix.sources[1], path="elsewhere")
    other = dataclasses.replace(mix, sources=(mix.sources[0], moved, *mix.sources[2:]))
    assert differences(mix, other) == ["sources.1.path: c4 -> elsewhere"]
