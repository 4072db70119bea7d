"""Records of repositories for tests, and what the source makes of them."""

import json

from data_pipelines.document import Dropped
from data_pipelines.sources import open_source, read_all
from llama_jax.config import GitHubSource

MIT = "Permission is hereby granted, free of charge, to any person obtaining a copy\nof this"
GPL = "GNU GENERAL PUBLIC LICENSE\n  Version 3, 29 June 2007\n"


def collect(path, **options):
    dropped = Dropped()
    source = open_source(GitHubSource(path=str(path), **options))
    return list(read_all(source, dropped)), dropped


def row(path, content="x = 1\n", *, repository="owner/name", licence="MIT", **others):
    return {"repo_name": repository, "path": path, "license": licence, "content": content} | others


def write_rows(path, *rows):
    path.write_text("".join(json.dumps(each) + "\n" for each in rows))
    return path
