"""A document of a split is found among the cleaned documents, whatever files they lie in."""

import hashlib

import pytest

from data_pipelines.document import Document
from data_pipelines.provenance import find_document
from data_pipelines.tables import Hashed, write_documents

NUM_FILES = 3


@pytest.fixture
def documents(tmp_path):
    made = [Document(f"f:{number}", f"text {number}", f"u{number}") for number in range(2500)]
    hashed = sorted(Hashed(hashlib.sha256(each.text.encode()).digest(), each) for each in made)
    folder = tmp_path / "documents"
    folder.mkdir()
    for part in range(NUM_FILES):
        of_part = [each for each in hashed if each.bucket(NUM_FILES) == part]
        write_documents(folder / f"web-{part:05d}-of-{NUM_FILES:05d}.parquet", of_part)
    write_documents(folder / "web_x-00000-of-00001.parquet", hashed[:1])
    return hashed


@pytest.mark.parametrize("fraction", [0.0, 0.1, 1.0])
def test_documents_of_a_split_are_counted_as_shards_hold_them(documents, tmp_path, fraction):
    for split in ("train", "heldout"):
        ours = [each for each in documents if each.is_held_out(fraction) == (split == "heldout")]
        for number in range(0, len(ours), 199):
            assert find_document(tmp_path, "web", split, number, fraction) == ours[number]
        assert find_document(tmp_path, "web", split, len(ours), fraction) is None


def test_a_missing_folder_is_named(tmp_path):
    with pytest.raises(ValueError, match=r"has no documents/web-\*\.parquet"):
        find_document(tmp_path, "web", "train", 0, 0.1)
