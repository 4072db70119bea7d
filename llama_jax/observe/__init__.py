"""What a person sees of a run, and what is kept of it.

Nothing is imported here, so that one part does not load the others' libraries; import from
`llama_jax.observe.run_directory`, `.progress`, `.writers`, `.throughput` and `.plots`.
"""
