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

And, where it is there (what is not is said, and its filter left out):

    eval/           evaluation sets, whose texts are kept out of all sources
    quality.model   of `llama-jax data classifier train`, for web pages; another name:
                    --sources.0.filters.3.path other.model

Source: Touvron et al. 2023 (arXiv:2302.13971), section 2.1 and table 1: CommonCrawl through CCNet's
paragraphs and languages and a classifier against references of Wikipedia, C4, near duplicates of
books. Where that does not say how, or a model of CCNet's would be needed (its perplexities),
published rules stand in: Gopher's and C4's; RedPajama-1's for code, with its near duplicates as
StarCoder; personal data as Dolma; evaluation sets as GPT-3.
"""

from llama_jax.config import (
    ArxivSource,
    BooksSource,
    BuildConfig,
    C4Rules,
    CodeRules,
    CommonCrawlSource,
    Decontamination,
    FilesSource,
    GitHubSource,
    GopherQuality,
    GopherRepetition,
    LanguageFilter,
    MinHash,
    ParagraphDedup,
    PersonalData,
    QualityClassifier,
    StackExchangeSource,
    TokenizerTraining,
    WikipediaSource,
)

QUALITY = QualityClassifier(path="quality.model", if_there=True)
# A page goes for a test item that it has; of a book or an article the item alone.
NO_TESTS = Decontamination(paths=("eval",), if_there=True)
WITHOUT_TESTS = Decontamination(paths=("eval",), action="remove", if_there=True)


def config() -> BuildConfig:
    return BuildConfig(
        name="llama1_mix",
        sources=(
            CommonCrawlSource(
                path="commoncrawl",
                filters=(
                    LanguageFilter(),
                    GopherRepetition(),
                    GopherQuality(),
                    QUALITY,
                    PersonalData(),
                    NO_TESTS,
                ),
                dedup=(ParagraphDedup(),),
            ),
            FilesSource(
                name="c4",
                path="c4",
                filters=(C4Rules(), LanguageFilter(), PersonalData(), NO_TESTS),
                dedup=(MinHash(),),
            ),
            GitHubSource(path="github", filters=(CodeRules(), NO_TESTS), dedup=(MinHash(),)),
            WikipediaSource(path="wikipedia", filters=(WITHOUT_TESTS,)),
            BooksSource(path="books", filters=(WITHOUT_TESTS,), dedup=(MinHash(),)),
            ArxivSource(path="arxiv", filters=(WITHOUT_TESTS,)),
            StackExchangeSource(path="stackexchange", filters=(NO_TESTS,)),
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
