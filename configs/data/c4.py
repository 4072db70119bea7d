"""C4 as the Allen Institute published it: web pages that were filtered before.

Command: llama-jax data build c4 --sources.0.path c4/en/ --out c4_data
Files: c4-train.00000-of-01024.json.gz and so on, JSON lines with text, timestamp and url.
"""

from llama_jax.config import BuildConfig, FilesSource, TokenizerTraining


def config() -> BuildConfig:
    return BuildConfig(
        name="c4",
        sources=(FilesSource(name="c4", metadata_fields=("timestamp",)),),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
