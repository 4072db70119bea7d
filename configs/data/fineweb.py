"""FineWeb, or FineWeb-Edu, as published: web pages that were filtered before.

Command: llama-jax data build fineweb --sources.0.path fineweb/ --out fineweb_data
Files: Parquet with text, id, dump, url, date, file_path, language, language_score, token_count.
"""

from llama_jax.config import BuildConfig, FilesSource, TokenizerTraining


def config() -> BuildConfig:
    return BuildConfig(
        name="fineweb",
        sources=(
            FilesSource(
                name="fineweb",
                language_field="language",
                metadata_fields=("id", "dump", "date", "file_path"),
            ),
        ),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
