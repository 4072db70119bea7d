"""A config is refused by name wherever it breaks a rule."""

import dataclasses

import pytest

from llama_jax.config import (
    AdamW,
    BuildConfig,
    CheckpointConfig,
    ComputeConfig,
    Cosine,
    DataConfig,
    LinearRope,
    Llama3Rope,
    MeshConfig,
    ModelConfig,
    Muon,
    PythonEnvironmentSource,
    RunConfig,
    TokenizerTraining,
    TrainConfig,
    WarmupStableDecay,
)

MODEL = ModelConfig(
    num_layers=2,
    embed_dim=16,
    mlp_dim=32,
    num_heads=4,
    num_kv_heads=2,
    head_dim=8,
    vocab_size=64,
    max_seq_len=32,
)
RUN = RunConfig(
    name="tiny",
    model=MODEL,
    data=DataConfig(seq_len=32),
    train=TrainConfig(num_steps=10, batch_size=4),
    optimizer=AdamW(peak_lr=1e-3),
    schedule=Cosine(warmup_steps=2),
)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"num_kv_heads": 3}, r"model\.num_kv_heads=3 must divide model\.num_heads=4"),
        ({"head_dim": 7}, r"model\.head_dim=7 must be even"),
        ({"embed_dim": 0}, r"model\.embed_dim must be positive, got 0"),
        ({"norm_eps": float("nan")}, r"model\.norm_eps must be positive, got nan"),
    ],
)
def test_impossible_shapes_are_refused_by_name(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(MODEL, **change)


@pytest.mark.parametrize(
    ("change", "complaint"),
    [
        ({"data": DataConfig(seq_len=64)}, r"data\.seq_len=64 must not exceed model\.max_seq_len"),
        ({"compute": ComputeConfig(loss_chunks=5)}, r"compute\.loss_chunks=5 must divide"),
        ({"schedule": Cosine(warmup_steps=11)}, r"schedule needs 11 steps"),
        (
            {"schedule": WarmupStableDecay(warmup_steps=6, decay_steps=5)},
            r"schedule needs 11 steps \(warm-up and cooldown\)",
        ),
    ],
)
def test_parts_that_do_not_fit_together_are_refused(change, complaint):
    with pytest.raises(ValueError, match=complaint):
        dataclasses.replace(RUN, **change)


@pytest.mark.parametrize(
    ("build", "complaint"),
    [
        (lambda: AdamW(peak_lr=0.0), r"optimizer\.peak_lr must be positive, got 0\.0"),
        (lambda: AdamW(peak_lr=1e-3, beta2=1.0), r"optimizer\.beta2=1\.0 must be in \[0, 1\)"),
        (lambda: Muon(peak_lr=1e-3, momentum=-1), r"optimizer\.momentum=-1 must be in"),
        (lambda: Cosine(warmup_steps=-1), r"schedule\.warmup_steps must be zero or more"),
        (lambda: Cosine(warmup_steps=1, final_fraction=2), r"schedule\.final_fraction must be in"),
        (lambda: ComputeConfig(dtype="float16"), r"compute\.dtype='float16' must be one of"),
        (lambda: ComputeConfig(remat="all"), r"compute\.remat='all' must be one of"),
        (lambda: MeshConfig(fsdp=-1, tensor=-1), r"mesh\.fsdp and mesh\.tensor are both -1"),
        (lambda: MeshConfig(context=0), r"mesh\.context=0 must be positive"),
        (lambda: DataConfig(seq_len=8, mixture=(("a", 0.0),)), r"'a' the weight 0\.0"),
        (lambda: DataConfig(seq_len=8, mixture=(("a", 1.0), ("a", 1.0))), r"names a twice"),
        (lambda: TrainConfig(num_steps=1, batch_size=3, accumulation_steps=2), r"must divide"),
        (
            lambda: TrainConfig(
                num_steps=9, batch_size=4, batch_ramp=((2, 6),), accumulation_steps=4
            ),
            r"accumulation_steps=4 must divide train\.batch_ramp=6",
        ),
        (
            lambda: TrainConfig(num_steps=9, batch_size=4, batch_ramp=((3, 8), (3, 16))),
            r"batch_ramp has 16 rows from step 3 on; .* each step after the one before it",
        ),
        (
            lambda: TrainConfig(num_steps=9, batch_size=4, batch_ramp=((3, 0),)),
            r"batch_ramp has 0 rows from step 3 on; .* both positive",
        ),
        (lambda: CheckpointConfig(keep_last=0), r"checkpoint\.keep_last must be positive"),
        (lambda: LinearRope(factor=0.5), r"model\.rope\.factor=0\.5 must be 1 or more"),
        (lambda: Llama3Rope(high_freq_factor=1.0), r"must exceed model\.rope\.low_freq_factor"),
        (lambda: TokenizerTraining(vocab_size=100), r"tokenizer\.vocab_size=100 must be 300"),
        (
            lambda: BuildConfig(
                name="x", sources=(PythonEnvironmentSource(),) * 2, tokenizer=TokenizerTraining()
            ),
            r"build\.sources has python twice",
        ),
    ],
)
def test_each_refusal_names_the_field_the_value_and_the_rule(build, complaint):
    with pytest.raises(ValueError, match=complaint):
        build()


def test_a_ramp_says_what_every_update_consumes():
    train = TrainConfig(num_steps=9, batch_size=2, batch_ramp=((3, 4), (5, 8), (20, 16)))
    sizes = [train.batch_size_at(step) for step in range(9)]
    assert sizes == [2, 2, 2, 4, 4, 8, 8, 8, 8]
    assert [train.rows_before(step) for step in range(10)] == [sum(sizes[:n]) for n in range(10)]
    assert train.stages == ((range(3), 2), (range(3, 5), 4), (range(5, 9), 8))
    run = dataclasses.replace(RUN, train=train)
    assert run.tokens_before(4) == 10 * 32
