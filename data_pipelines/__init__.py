"""From raw documents to token shards: sources, stages, and the runner that composes them.

A wheel carries this package as `llama_jax._data_pipelines`, so its own imports are relative; from
`llama_jax` it takes the config, the shard format and the tokenizers, nothing else.
"""

import os

# Arrow's own allocator keeps what was freed, more with every piece of a file that is read: memory
# would grow with the corpus. Workers inherit it; whoever has set another one keeps that.
os.environ.setdefault("ARROW_DEFAULT_MEMORY_POOL", "system")
