"""Papers of arXiv's bulk source tars, with a tokenizer trained on them.

Command: llama-jax data build arxiv --sources.0.path arxiv_src/ --out arxiv_data
Tars: arXiv's requester-pays bucket, "arXiv_src_YYMM_NNN.tar"; they are read as they are.
"""

from llama_jax.config import ArxivSource, BuildConfig, TokenizerTraining


def config() -> BuildConfig:
    return BuildConfig(
        name="arxiv",
        sources=(ArxivSource(),),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
