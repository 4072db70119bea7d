"""Any folder of text, JSON lines or Parquet files."""

from collections.abc import Iterator

from llama_jax.config import FilesSource

from ..document import Document, Dropped, RawFile
from .folder import raw_files
from .records import (
    MAX_RECORD_BYTES,
    RECORD_SUFFIXES,
    can_cut,
    checked_text,
    read_records,
    short_text,
)

_WHOLE = (".txt", ".md")
_SUFFIXES = (*_WHOLE, *RECORD_SUFFIXES)


class Files:
    """Documents of text, JSON lines and Parquet files, in the order of their paths.

    Ids are paths below the folder; records add their line or row, or a byte; see `Record`.
    """

    def __init__(self, config: FilesSource):
        self._config = config

    def files(self) -> Iterator[RawFile]:
        """Every file of these kinds; see `DocumentSource`."""
        return raw_files(
            self._config.name,
            self._config.path,
            lambda name: name.lower().endswith(_SUFFIXES),
            kinds=", ".join(_SUFFIXES),
        )

    def can_cut(self, file: RawFile) -> bool:
        """Whether it is Parquet, or large and plain JSON lines; see `Divisible`."""
        return can_cut(file)

    def read(self, file: RawFile, dropped: Dropped) -> Iterator[Document]:
        """Every record with text; see `DocumentSource`."""
        if file.name.lower().endswith(_WHOLE):
            yield from _whole(file, dropped)
            return
        config = self._config
        fields = tuple(filter(None, (config.url_field, config.language_field)))
        records = read_records(
            file, (config.text_field,), (*fields, *config.metadata_fields), dropped
        )
        for record in records:
            values = {name: short_text(value) for name, value in record.values.items()}
            yield Document(
                record.id,
                record.text,
                url=values.get(config.url_field, ""),
                language=values.get(config.language_field, ""),
                metadata=tuple(
                    (name, values[name]) for name in config.metadata_fields if values.get(name)
                ),
            )


def _whole(file: RawFile, dropped: Dropped) -> Iterator[Document]:
    with file.open() as opened:
        data = opened.read(MAX_RECORD_BYTES + 1)
    try:
        if len(data) > MAX_RECORD_BYTES:
            dropped.add(f"longer than {MAX_RECORD_BYTES:,} bytes", file.name)
        elif (text := checked_text(data.decode(), "text", file.name, dropped)) is not None:
            yield Document(file.name, text)
    except UnicodeDecodeError as error:
        dropped.add_bad(f"file damaged, the rest of it is lost ({type(error).__name__})", file.name)
