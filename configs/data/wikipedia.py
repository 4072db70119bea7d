"""Articles of Wikipedia dumps as plain text, with a tokenizer trained on them.

Command: llama-jax data build wikipedia --out wiki_data
    --sources.0.path enwiki-latest-pages-articles-multistream.xml.bz2
Dumps: https://dumps.wikimedia.org, "pages-articles-multistream"; a folder of several will do too.
"""

from llama_jax.config import BuildConfig, TokenizerTraining, WikipediaSource


def config() -> BuildConfig:
    return BuildConfig(
        name="wikipedia",
        sources=(WikipediaSource(),),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
