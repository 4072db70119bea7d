"""Pages of CommonCrawl as plain text, under FineWeb's quality rules.

Command: llama-jax data build common_crawl --sources.0.path CC-MAIN-2024-10/ --out crawl_data
Archives: https://data.commoncrawl.org, warc.paths.gz and wet.paths.gz of a crawl.
"""

from llama_jax.config import (
    BuildConfig,
    C4Rules,
    CommonCrawlSource,
    FineWebRules,
    GopherQuality,
    GopherRepetition,
    TokenizerTraining,
)


def config() -> BuildConfig:
    return BuildConfig(
        name="common_crawl",
        sources=(
            CommonCrawlSource(
                filters=(
                    GopherRepetition(),
                    GopherQuality(),
                    C4Rules(needs_terminal_punctuation=False),
                    FineWebRules(),
                ),
            ),
        ),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
