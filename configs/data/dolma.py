"""Dolma, or another corpus in the format of its toolkit.

Command: llama-jax data build dolma --sources.0.path dolma/ --out dolma_data
Files: .json.gz or .jsonl.zst, JSON lines with id, text, source, added, created and metadata, whose
fields differ from source to source; those of web pages have a url.
"""

from llama_jax.config import BuildConfig, FilesSource, TokenizerTraining


def config() -> BuildConfig:
    return BuildConfig(
        name="dolma",
        sources=(
            FilesSource(
                name="dolma",
                url_field="metadata.url",
                metadata_fields=("id", "source", "created"),
            ),
        ),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
