"""A small build for tests: its texts, who hears of it, and what it has left."""

from llama_jax.data.shards import SplitReader, read_manifest
from llama_jax.data.tokenizer import find_tokenizer, load_tokenizer

WORDS = "the a quick brown fox jumps over lazy dogs while seven wise owls look on from old trees"


def texts(count, salt=0):
    words = WORDS.split()
    for i in range(count):
        chosen = [words[(i * 7 + j * j + salt) % len(words)] for j in range(20 + i % 30)]
        yield f"document {salt} {i}\n" + " ".join(chosen) + ".\n"


class Quiet:
    """Hears of progress; dies at a stage when told to."""

    def __init__(self, die_at="never"):
        self.stages, self.deaths, self._die_at = [], [], die_at

    def stage(self, name, total_bytes):
        self.stages.append(name)

    def advance(self, name, num_bytes):
        if name.startswith(self._die_at):
            raise KeyboardInterrupt

    def died(self, tasks):
        self.deaths.append(tasks)


def read_split(out, source, split):
    """Ids and texts of a split, in order."""
    manifest = read_manifest(out / source)
    tokenizer = load_tokenizer(find_tokenizer(out))
    reader = SplitReader(out / source, manifest, split)
    numbers = range(manifest.splits[split].num_documents)
    return [
        (reader.document_id(number), tokenizer.decode(tokens))
        for number, tokens in reader.read_tokens(numbers)
    ]


def contents(out):
    return {
        path.relative_to(out).as_posix(): path.read_bytes()
        for path in sorted(out.rglob("*"))
        if path.is_file() and path.name != "dataset_info.json"
    }
