"""The recipe of a small build."""

import pytest

from llama_jax.config import BuildConfig, FilesSource, TokenizerTraining
from tests.data_pipelines.small_build import texts


@pytest.fixture
def config(tmp_path):
    folder = tmp_path / "texts"
    folder.mkdir()
    for number, text in enumerate(texts(200)):
        (folder / f"{number:03d}.txt").write_text(text)
    return BuildConfig(
        name="test",
        sources=(FilesSource(path=str(folder)),),
        tokenizer=TokenizerTraining(vocab_size=330, sample_bytes=20_000),
        held_out_fraction=0.2,
        shard_tokens=3000,
    )
