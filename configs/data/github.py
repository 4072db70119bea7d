"""Source code of repositories under permissive licences, under RedPajama's and StarCoder's rules.

Command: llama-jax data build github --sources.0.path github/ --out github_data
Files: Parquet or JSON lines with repository, path, licence and content (BigQuery's dumps, The
Stack, github-code, RedPajama), or a tar of each repository (`git archive -o owner/name.tar.gz
HEAD`).
"""

from llama_jax.config import BuildConfig, CodeRules, GitHubSource, TokenizerTraining


def config() -> BuildConfig:
    return BuildConfig(
        name="github",
        sources=(GitHubSource(filters=(CodeRules(),)),),
        tokenizer=TokenizerTraining(),
        held_out_fraction=0.01,
    )
