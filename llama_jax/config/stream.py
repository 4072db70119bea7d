"""What of a data recipe a run can read without building it first."""

from llama_jax.config.build import BuildConfig, TokenizerFile


def check_stream(config: BuildConfig) -> None:
    """Raises ValueError if a recipe asks for what only a build can do: to look at all documents."""
    if not isinstance(config.tokenizer, TokenizerFile):
        raise ValueError(
            "stream.tokenizer is to be trained, but documents that are streamed need one that is "
            "there: train it with `llama-jax tokenizer train ...`, then give --tokenizer-file, or "
            "TokenizerFile in the recipe."
        )
    for source in config.sources:
        if source.dedup:
            raise ValueError(
                f"stream.sources.{source.name}.dedup: duplicates are found in a whole corpus, not "
                "in a stream. Give a recipe without it, or build shards: `llama-jax data build`."
            )
        if source.max_bytes:
            raise ValueError(
                f"stream.sources.{source.name}.max_bytes={source.max_bytes}: documents are chosen "
                "by hash from a whole corpus, not in a stream. Give a recipe without it "
                "(train.num_steps bounds what is read), or build shards with "
                "`llama-jax data build`."
            )
