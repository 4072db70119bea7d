"""A host with other versions than the launch was checked with does not begin."""

from importlib import metadata

import pytest

from llama_jax import __version__
from llama_jax.cli import train, versions


def test_the_same_versions_are_taken_and_none_are_looked_for_where_none_are_stated():
    versions.check({})
    stated = versions.stated_here(tpu=True)
    assert f"llama-jax=={__version__}" in stated and f"jax=={metadata.version('jax')}" in stated
    versions.check({versions.NAME: stated})


def test_the_compiler_of_tpus_is_asked_for_on_their_hosts_alone(monkeypatch):
    monkeypatch.setattr(versions, "_installed", lambda name: "1")
    assert versions.stated_here(tpu=True).split()[-1] == "libtpu==1"
    assert "libtpu" not in versions.stated_here(tpu=False)


@pytest.mark.parametrize(
    ("stated", "complaint"),
    [
        ("jax==0.0.1", f"jax {metadata.version('jax')}, not 0.0.1"),
        ("jax==0.0.1 no-such-package==3", "no-such-package none, not 3"),
    ],
)
def test_another_version_is_refused_by_name_before_anything_is_done(stated, complaint, monkeypatch):
    monkeypatch.setenv(versions.NAME, stated)
    with pytest.raises(ValueError, match=complaint):
        train.main(["demo"])


def test_what_the_lock_has_otherwise_is_named(tmp_path, monkeypatch):
    lock = tmp_path / "requirements.lock"
    monkeypatch.setattr(versions, "_LOCK", lock)
    assert versions.differences_from_lock() == []
    lock.write_text(f"jax=={metadata.version('jax')}\njaxlib==0.0.1 ; python_version > '3'\n")
    assert versions.differences_from_lock() == [f"jaxlib {metadata.version('jaxlib')}, not 0.0.1"]
