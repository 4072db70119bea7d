"""Books of Project Gutenberg and questions of Stack Exchange, with a tokenizer trained on them.

Command: llama-jax data build books_and_answers --sources.0.path gutenberg/ --sources.1.path dumps/
    --out books_and_answers_data
"""

from llama_jax.config import BooksSource, BuildConfig, StackExchangeSource, TokenizerTraining


def config() -> BuildConfig:
    return BuildConfig(
        name="books_and_answers",
        sources=(BooksSource(), StackExchangeSource()),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
