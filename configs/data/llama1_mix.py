"""LLaMA-1's mixture, from the corpora as they are published.

Command: llama-jax data build llama1_mix --input corpora/ --out mix_data
Input: a folder with one of each source, named as the paths below (without one: --skip c4).

    commoncrawl/    WARC or WET files of a crawl          https://data.commoncrawl.org
    c4/             JSON lines of C4, as on the hub
    github/         Parquet or JSON lines with repository, path, licence and content
    wikipedia/      pages-articles dumps                  https://dumps.wikimedia.org
                    (LLaMA-1's: bg ca cs da de en es fr hr hu it nl pl pt ro ru sl sr sv uk)
    books/          Project Gutenberg's .txt files
    arxiv/          arXiv_src_*.tar
    stackexchange/  Posts.xml of each site

Source: Touvron et al. 2023 (arXiv:2302.13971), section 2.1 and table 1. Where that does not say
how, Gopher's and C4's published rules stand in: LLaMA-1's CommonCrawl went through CCNet, whose
perplexities and whose classifier against references of Wikipedia need models of their own (train
the latter with `llama-jax data classifier train`, and add `QualityClassifier`).
"""

from llama_jax.config import (
    ArxivSource,
    BooksSource,
    BuildConfig,
    C4Rules,
    CodeRules,
    CommonCrawlSource,
    FilesSource,
    GitHubSource,
    GopherQuality,
    GopherRepetition,
    LanguageFilter,
    MinHash,
    ParagraphDedup,
    StackExchangeSource,
    TokenizerTraining,
    WikipediaSource,
)


def config() -> BuildConfig:
    return BuildConfig(
        name="llama1_mix",
        sources=(
            CommonCrawlSource(
                path="commoncrawl",
                filters=(LanguageFilter(), GopherRepetition(), GopherQuality()),
                dedup=(ParagraphDedup(),),
            ),
            FilesSource(
                name="c4", path="c4", filters=(C4Rules(), LanguageFilter()), dedup=(MinHash(),)
            ),
            GitHubSource(path="github", filters=(CodeRules(),)),
            WikipediaSource(path="wikipedia"),
            BooksSource(path="books", dedup=(MinHash(),)),
            ArxivSource(path="arxiv"),
            StackExchangeSource(path="stackexchange"),
        ),
        mixture=(
            ("common_crawl", 67.0),
            ("c4", 15.0),
            ("github", 4.5),
            ("wikipedia", 4.5),
            ("books", 4.5),
            ("arxiv", 2.5),
            ("stack_exchange", 2.0),
        ),
        tokenizer=TokenizerTraining(vocab_size=32_000, sample_bytes=1_000_000_000),
        held_out_fraction=0.001,
    )
