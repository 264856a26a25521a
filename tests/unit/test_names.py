"""Names are found as people mean them, and put in an order that is plain."""

import pytest

from clockwork_experiments.data import names


@pytest.fixture
def folder(tmp_path):
    for name in ("caf\u00e9.png", "re\u0301sume\u0301.png", "Plain.PNG"):
        (tmp_path / name).write_bytes(b"")
    return tmp_path


@pytest.mark.parametrize(
    ("asked", "found"),
    [
        ("caf\u00e9.png", "caf\u00e9.png"),
        ("cafe\u0301.png", "caf\u00e9.png"),
        ("r\u00e9sum\u00e9.png", "re\u0301sume\u0301.png"),
        ("R\u00c9SUM\u00c9.png", "re\u0301sume\u0301.png"),
        ("plain.png", "Plain.PNG"),
        ("other.png", None),
    ],
)
def test_a_file_is_found_in_any_form_and_case(folder, asked, found):
    wanted = None if found is None else folder / found
    assert names.find(folder, [asked]) == wanted


def test_the_name_as_it_is_comes_first(folder):
    for name in ("plain.png", "cafe\u0301.png"):
        (folder / name).write_bytes(b"")
        assert names.find(folder, [name]) == folder / name


def test_the_order_is_of_composed_names(tmp_path):
    for name in ("e\u0301.png", "f.png", "001.png", "010.png", "z"):
        (tmp_path / name).write_bytes(b"")
    listed = [path.name for path in names.files_in(tmp_path)]
    assert listed == ["001.png", "010.png", "f.png", "z", "e\u0301.png"]
