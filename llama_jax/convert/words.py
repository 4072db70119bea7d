"""What an exported folder says of words: tokenizer files, special ids, how to generate.

Of an imported model they are the files that it came with, byte for byte, which its run keeps; of a
run of ours they are made from its tokenizer.
"""

import dataclasses
import functools
import json
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from llama_jax.convert.json_values import read_json
from llama_jax.convert.tiktoken import Vocabulary, write_tiktoken
from llama_jax.convert.tokenizer import (
    SpecialTokens,
    read_sentencepiece,
    special_tokens,
    write_tokenizer,
)

FOLDER = "imported"  # of the files that a model came with, in a run's folder
_GENERATION = "generation_config.json"
_TOKENIZER = (
    "tokenizer.json", "tokenizer.model", "tokenizer.tiktoken", "tokenizer_config.json",
    "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt",
    "chat_template.jinja", "chat_template.json",
)  # fmt: skip
_TEMPLATES = "additional_chat_templates"
_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")
_OF_WORDS = ("unk_token_id", "sep_token_id", "tokenizer_class")  # of config.json, where it has them


@dataclasses.dataclass(frozen=True, kw_only=True, slots=True)
class Words:
    """What is written of words.

    Attributes:
        attributes: Of config.json: ids of special tokens (a number, several, or None), and others.
        write: Writes all files but config.json into a folder.
        has_tokenizer: Whether a tokenizer is among them.
    """

    attributes: Mapping[str, Any]
    write: Callable[[Path], None]
    has_tokenizer: bool


def no_words() -> Words:
    """Nothing is known of a tokenizer."""
    ids: dict[str, Any] = dict.fromkeys(_IDS)
    return Words(
        attributes=ids, write=functools.partial(_write_generation, ids), has_tokenizer=False
    )


def words_of(tokenizer: Path | Vocabulary, max_seq_len: int) -> Words:
    """Those of a tokenizer of ours.

    Raises:
        ValueError: If it cannot be exported.
    """
    if isinstance(tokenizer, Vocabulary):
        special = tokenizer.special_tokens()
        write = functools.partial(write_tiktoken, tokenizer, max_seq_len=max_seq_len)
    else:
        model = read_sentencepiece(tokenizer)
        special = special_tokens(model)
        write = functools.partial(write_tokenizer, model, tokenizer, max_seq_len=max_seq_len)
    ids = _ids_of(special)

    def write_all(folder: Path) -> None:
        _write_generation(ids, folder)
        write(folder)

    return Words(attributes=ids, write=write_all, has_tokenizer=True)


def words_beside(folder: Path) -> tuple[str, ...]:
    """Names of the files beside a Hugging Face model's weights that are its words.

    Raises:
        ValueError: If they need code that is not carried, or one of them holds no JSON.
    """
    names = [name for name in (*_TOKENIZER, _GENERATION) if (folder / name).is_file()]
    templates = sorted((folder / _TEMPLATES).glob("*.jinja"))
    names += [path.relative_to(folder).as_posix() for path in templates]
    for name in {"tokenizer_config.json", _GENERATION} & set(names):
        said = read_json(folder / name)
        for attribute in ("auto_map", "custom_generate"):
            if attribute in said:
                raise ValueError(
                    f"{folder / name}: {attribute}={said[attribute]!r} names code, which is not "
                    "carried; remove it from a copy of the file to convert without that code."
                )
    return tuple(names)


def keep_words(folder: Path, names: tuple[str, ...], run_dir: Path) -> None:
    """Copies the files of an imported model's words into its run's folder."""
    for name in names:
        target = run_dir / FOLDER / name
        target.parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(folder / name, target)


def kept_words(run_dir: Path, config: Mapping[str, Any], *, with_tokenizer: bool = True) -> Words:
    """Those that a run was imported with.

    Args:
        run_dir: Of the run.
        config: The config.json that it was imported with.
        with_tokenizer: Whether to write the tokenizer, too.
    """
    names = words_beside(run_dir / FOLDER)
    ids = {name: config.get(name) for name in _IDS}
    written = [name for name in names if with_tokenizer or name == _GENERATION]

    def write(folder: Path) -> None:
        if _GENERATION not in names:
            _write_generation(ids, folder)
        for name in written:
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(run_dir / FOLDER / name, folder / name)

    others = {name: config[name] for name in _OF_WORDS if name in config}
    return Words(attributes=ids | others, write=write, has_tokenizer=has_tokenizer(written))


def with_tokenizer_of(made: Words, kept: Words) -> Words:
    """Words that a model came with, `kept`, and the tokenizer that they lack, `made`."""
    said = {name: value for name, value in kept.attributes.items() if value is not None}

    def write(folder: Path) -> None:
        made.write(folder)
        kept.write(folder)

    return Words(attributes={**made.attributes, **said}, write=write, has_tokenizer=True)


def has_tokenizer(names: list[str] | tuple[str, ...]) -> bool:
    """Whether a tokenizer is among the files of words."""
    return any(name in names for name in ("tokenizer.json", "tokenizer.model", "vocab.json"))


def _ids_of(special: SpecialTokens) -> dict[str, int | None]:
    ids = {f"{role}_token_id": index for role, index in dataclasses.asdict(special).items()}
    return {name: index if index >= 0 else None for name, index in ids.items()}


def _write_generation(ids: Mapping[str, Any], folder: Path) -> None:
    known = {name: index for name, index in ids.items() if index is not None}
    text = json.dumps({"_from_model_config": True, **known}, indent=2) + "\n"
    (folder / _GENERATION).write_text(text)
