"""Checkpoints to PyTorch and back."""

import sys

from llama_jax.cli.convert.check import check
from llama_jax.cli.convert.from_hugging_face import from_hugging_face
from llama_jax.cli.convert.from_llama2c import from_llama2c
from llama_jax.cli.convert.from_meta import from_meta
from llama_jax.cli.convert.to_hugging_face import to_hugging_face
from llama_jax.cli.convert.to_meta import to_meta

_FORMATS = {
    "to-hf": to_hugging_face,
    "from-hf": from_hugging_face,
    "to-meta": to_meta,
    "from-meta": from_meta,
    "from-llama2c": from_llama2c,
    "check": check,
}
_USAGE = """usage: llama-jax convert FORMAT ...

  to-hf RUN_DIR OUT_DIR    export a checkpoint as the folder that transformers reads
  from-hf HF_DIR OUT_DIR   import such a folder as a run with one checkpoint
  to-meta RUN_DIR OUT_DIR  export a checkpoint as Meta's consolidated.NN.pth
  from-meta META_DIR OUT_DIR
                           import such files as a run with one checkpoint
  from-llama2c FILE OUT_DIR
                           import a file of llama2.c
  check A B                compare two of these bit by bit, whatever their formats

example:
  llama-jax convert to-hf demo_run/model demo_run/hf
  llama-jax convert from-hf demo_run/hf imported
  llama-jax convert check demo_run/model imported

`llama-jax convert FORMAT --help` lists every option."""


def main(argv: list[str]) -> int:
    """Runs the command; see `--help`."""
    if not argv or argv[0] in ("-h", "--help"):
        print(_USAGE, file=sys.stdout if argv else sys.stderr)
        return 0 if argv else 2
    if argv[0] not in _FORMATS:
        raise ValueError(f"FORMAT={argv[0]!r} is no format; there are: {', '.join(_FORMATS)}.")
    remote = [argument for argument in argv[1:] if "://" in argument]
    if remote and argv[0].startswith("from-"):
        raise ValueError(
            f"{remote[0]!r} is in a bucket; imports are between folders of a file system: copy "
            "it to a disk first (`gcloud storage cp -r`, `aws s3 cp --recursive`), and the result "
            "back."
        )
    return _FORMATS[argv[0]](argv[1:])
