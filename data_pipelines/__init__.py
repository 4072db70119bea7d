"""From raw documents to token shards: sources, stages, and the runner that composes them.

A wheel carries this package as `llama_jax._data_pipelines`, so its own imports are relative; from
`llama_jax` it takes the config, the shard format and the tokenizers, nothing else.
"""
