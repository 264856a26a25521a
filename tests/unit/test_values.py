"""Numbers for prose: where they lie, and how they are written."""

import pytest

from clockwork_experiments.report import listing, values
from clockwork_experiments.report.places import embed

SOURCES = """
values:
  saves: {csv: t.csv, row: b, column: saving, factor: -100, unit: " %"}
  level: {csv: t.csv, row: {row: second, run: b}, column: psnr, digits: 1, interval: true, unit: " dB"}
  empty: {csv: t.csv, row: a, column: saving}
  lost: {csv: t.csv, row: c, column: saving}
  share: {json: s.json, path: [loops, share], factor: 100}
  timed: {measured: 3 minutes, when: 2026-11, how: a clock}
  hold: {claims: c.md, count: holds}
  verdict: {claims: c.md, verdict: C2}
  effect: {claims: c.md, claim: C2, part: p, measure: CLIP}
tables:
  few:
    rows: {First: a, Second: b}
    columns:
      saved: {csv: t.csv, column: saving, factor: -100, unit: " %"}
"""  # noqa: E501
CLAIMS = """**Claims**

| claim | the paper says | parts that hold | fail | open | verdict |
|:--|:--|--:|--:|--:|:--|
| C1 | It saves. | 1 | 0 | 0 | **holds** |
| C2 | It is better. | 0 | 1 | 0 | **does not hold** |

### C1: holds

| part | measure | effect | needed | verdict |
|:--|:--|--:|--:|:--|
| p | CLIP | +9 | above 0 | holds |

### C2: does not hold

| part | measure | effect | needed | verdict |
|:--|:--|--:|--:|:--|
| p | CLIP | −1 [−2, −0] | above 0 | does not hold |
"""


@pytest.fixture
def root(tmp_path):
    reference = tmp_path / values.REFERENCE
    reference.mkdir(parents=True)
    (tmp_path / values.SOURCES).write_text(SOURCES, encoding="utf-8")
    (reference / "c.md").write_text(CLAIMS, encoding="utf-8")
    (reference / "s.json").write_text('{"loops": {"share": 0.954}}', encoding="utf-8")
    (reference / "t.csv").write_text(
        "row,run,saving,psnr,psnr_low,psnr_high\n"
        "first,a,,,,\nsecond,b,-0.326,45.88,44.51,47.14\n",
        encoding="utf-8",
    )
    return tmp_path


@pytest.mark.parametrize(
    ("name", "shown"),
    [
        ("saves", "33 %"),
        ("level", "45.9 [44.5, 47.1] dB"),
        ("empty", "—"),
        ("share", "95"),
        ("timed", "3 minutes"),
        ("hold", "1"),
        ("verdict", "does not hold"),
        ("effect", "−1 [−2, −0]"),
    ],
)
def test_a_value_is_read_where_it_lies(root, name, shown):
    assert values.value(name, root) == shown
    text = f"It is <!-- value: {name} -->old<!-- end -->."
    filled = f"It is <!-- value: {name} -->{shown}<!-- end -->."
    assert embed(text, root) == filled == embed(filled, root)


def test_what_is_not_there_is_named(root):
    with pytest.raises(ValueError, match="'gone' is not one of saves, level"):
        values.value("gone", root)
    with pytest.raises(ValueError, match="'lost': .*'row': 'c'"):
        values.value("lost", root)
    with pytest.raises(ValueError, match="table 'gone' is not one of few"):
        values.table("gone", root)


def test_a_small_table_is_made_of_rows_and_columns_of_others(root):
    assert values.table("few", root).splitlines() == [
        "|  | saved |",
        "|:--|--:|",
        "| First | — |",
        "| Second | 33 % |",
    ]


def test_claims_are_listed_by_verdict(root):
    assert values.verdicts(root / values.REFERENCE / "c.md").splitlines() == [
        "- **Holds**",
        "    - C1: It saves.",
        "- **Does not hold**",
        "    - C2: It is better.",
    ]


def test_a_listing_links_what_is_kept_in_the_papers_order(root):
    papers = root / "workflow" / "papers"
    papers.mkdir(parents=True)
    (papers / "one.yaml").write_text(
        "figures: {figure_2: {mini: {title: Two, caption: Said.}}}", encoding="utf-8"
    )
    kept = root / values.REFERENCE / "mini"
    for name in ("tables/one/table_s1.md", "tables/one/table_10.md"):
        (kept / name).parent.mkdir(parents=True, exist_ok=True)
        (kept / name).write_text(f"**{name[-6:-3]}**\n", encoding="utf-8")
    (kept / "tables/one/table_10.csv").touch()
    (kept / "figures/one").mkdir(parents=True)
    (kept / "figures/one/figure_2.png").touch()
    assert listing.listing(
        "mini/one", root, root / "docs" / "results"
    ).splitlines() == [
        "**Tables**",
        "",
        "- [_10](../reference/mini/tables/one/table_10.md) "
        "([CSV](../reference/mini/tables/one/table_10.csv))",
        "- [_s1](../reference/mini/tables/one/table_s1.md)",
        "",
        "**Two**",
        "",
        "![Two](../reference/mini/figures/one/figure_2.png)",
        "",
        "Said.",
    ]
