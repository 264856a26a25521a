"""Generated tables in Markdown files."""

import pytest

from clockwork_experiments.report.places import embed


def test_a_place_is_filled_and_filled_again(tmp_path):
    (tmp_path / "a.md").write_text("| new |\n")
    text = "before\n<!-- table: a.md -->\nold\n<!-- end of table -->\nafter\n"
    filled = embed(text, tmp_path)
    assert filled == (
        "before\n<!-- table: a.md -->\n\n| new |\n\n<!-- end of table -->\nafter\n"
    )
    assert embed(filled, tmp_path) == filled


def test_a_missing_table_is_named(tmp_path):
    text = "<!-- table: gone.md -->\n<!-- end of table -->\n"
    with pytest.raises(ValueError, match=r"gone\.md"):
        embed(text, tmp_path)
