"""Tokens at training time: tokenizers, shards, order, packing, loader.

Public signatures:

    from llama_jax.data.batch import Batch
        # NamedTuple: inputs, targets (Int32 "B T"), loss_mask (Float32 "B T"),
        # positions, segments (Int32 "B T")
    from llama_jax.data.tokenizer import Tokenizer, load_tokenizer, find_tokenizer
        load_tokenizer(path) -> Tokenizer
        find_tokenizer(data_directory) -> Path
        # .kind .path .vocab_size .bos_id .eos_id .sha256 .lossless
        # .encode(text, *, bos=False, eos=False) -> Int32 array; .encode_batch(texts, ...);
        # .decode(ids) -> str; .piece(token) -> str
    from llama_jax.data.dataset import Dataset, open_dataset
        open_dataset(config: DataConfig, *, vocab_size: int, batch_size: int,
                     rows: range | None = None, split="train", cache_bytes=512 MiB) -> Dataset
        dataset.batch(first_sample) -> Batch                     # rows of one step, by value
        dataset.batches(first_sample, *, num_threads=2, prefetch=4) -> Batches
            # an iterator of Batch without end, prefetched by Grain; .close()
        dataset.resized(batch_size, rows) -> Dataset             # the same samples, other batches
        dataset.documents_of(first_sample, num_samples) -> list[Document]  # .source .number .id
        dataset.epochs(samples) -> dict[str, float]
        dataset.sources -> tuple[str, ...]; .weights; .tokens_per_epoch -> dict[str, int]
        dataset.identity -> Identity                             # what tells it from others
    from llama_jax.data.identity import Identity, differences
        differences(old, new) -> list[str]                       # none: the same samples
    from llama_jax.data.streamed import StreamedDataset, open_stream
        # A Dataset that reads raw documents; also .held_out(source), .left_out(), .close()
    from llama_jax.data.held_out import HeldOut, held_out_batches
        held_out_batches(directory, source, *, seq_len, batch_size, vocab_size, max_rows=0,
                         rows: range | None = None) -> HeldOut | None
            # iterable of Batch; .num_batches .num_documents .text_bytes .scored_tokens
    from llama_jax.data.shards import list_sources
        list_sources(directory) -> list[str]

`first_sample` is the global sample counter, the only state: after a step of `batch_size` rows it
has grown by `batch_size`, whatever the number of processes or readers.
"""
