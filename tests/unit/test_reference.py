"""Small versions of the tables' runs give the images that they gave before."""

import json

import pytest
import reference


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reference")
    reference.prepare(folder)
    return folder


@pytest.fixture(scope="module")
def kept(folder) -> dict:
    kept = json.loads(reference.KEPT.read_text())
    here = reference.key(folder)
    other = [name for name in here if here[name] != kept["key"][name]]
    if other:
        pytest.skip(
            f"other {', '.join(other)} than the kept digests are of; "
            "`python tests/reference.py` writes them anew"
        )
    return kept


@pytest.mark.parametrize("kind", reference.GROUPS)
def test_the_steps_make_what_they_made(folder, kept, kind):
    make, names = reference.GROUPS[kind]
    assert set(names) == set(kept[kind])
    changed = [name for name in names if make(folder, name) != kept[kind][name]]
    assert not changed
