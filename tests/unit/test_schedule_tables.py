"""Table S6, and tables of translations: what their cells show."""

import dataclasses
import json

import pytest
import set_step

from clockwork_experiments.base import storage
from clockwork_experiments.cost import formulas
from clockwork_experiments.report.tables import results as tables
from clockwork_experiments.report.tables.levels import MultiTableRow, MultiTableSpec
from clockwork_experiments.report.tables.table import Results, Value

SPEC = MultiTableSpec(
    "Table S6",
    "A caption.",
    (
        MultiTableRow(10, "a", {"time": -7.46}),
        MultiTableRow(9, "b", {"clip_image": 0.03, "parameters": 27.9}),
    ),
    "ip2p",
)


def gain(value: float) -> dict:
    return {"value": value, "low": value - 0.01, "high": value + 0.01}


def answer(row: int, problem: str, levels: list[int]) -> dict:
    return {
        "row": row,
        "problem": problem,
        "levels": levels,
        "savings": {"time": -1.25, "parameters": 8.0, "milliseconds": -0.75},
        "best_single": row - 1,
        "beyond_best_single": {"savings": {"time": -0.5}},
        "heldout": {"clip_image": gain(0.002), "clip_direction": gain(-0.003)},
    }


FOUND = {"multi": {"rows": [answer(10, "a", [8, 10]), answer(9, "b", [11, 7])]}}


def test_published_and_held_out_gains_stand_side_by_side():
    first, second = SPEC.table(Results({}, search=FOUND)).text()
    assert first["problem"] == "(a) fixed memory, least time" and first["row"] == "D10"
    assert first["levels"] == "8, 10" and first["milliseconds"] == "−0.75"
    assert (first["best_single"], first["time_beyond"]) == ("D09", "−0.50")
    assert (first["time_published"], first["time"]) == ("−7.46", "−1.25")
    assert second["clip_image"] == "+0.0020 [−0.0080, +0.0120]"
    assert second["clip_direction"] == "−0.0030 [−0.0130, +0.0070]"
    assert second["clip_image_published"] == "+0.03"
    assert (
        second["parameters_published"] == "+27.90" and second["parameters"] == "+8.00"
    )


def test_without_a_search_ours_is_unknown_and_a_missing_answer_is_named(tmp_path):
    (first, _) = SPEC.table(Results({})).text()
    assert "time" not in first and first["time_published"] == "−7.46"
    missing = {"multi": {"rows": FOUND["multi"]["rows"][:1]}}
    with pytest.raises(ValueError, match=r"no answer for D9 and problem \(b\)"):
        SPEC.table(Results({}, search=missing))


@pytest.mark.parametrize("found", [FOUND, None])
def test_step_writes_table_s6(tmp_path, found):
    search = None
    if found is not None:
        search = tmp_path / "ip2p.json"
        storage.write_json(search, found)
    spec = json.dumps(dataclasses.asdict(SPEC))
    output = tmp_path / "s6.csv"
    set_step.table(kind="multi_depth", spec=spec, search=search, output=output)
    csv, markdown = (output.with_suffix(s).read_text("utf-8") for s in (".csv", ".md"))
    assert ("clip_image_low" in csv and "0.012" in csv) == (found is not None)
    printed, *ours = (line for line in markdown.splitlines() if " D10 " in line)
    assert " published " in printed and "−7.46" in printed and "—" in printed
    assert len(ours) == (found is not None)
    assert all(" ours " in line and "−1.25" in line for line in ours)


# --- translations in tables of results ------------------------------------------------

COUNTS = {
    "task": "edit",
    "levels": [
        {
            "parameters": 60 * level,
            "count": {"flops": 1000 * level, "parameters": 100 * level},
        }
        for level in (1, 2, 3)
    ],
    "shared": {"time": 7, "output": 18},
    "branch": None,
    "adaptors": {"identity": {"flops": 500}},
}
RUN = {"translator": "ip2p", "steps": 5, "guidance": 2.0}
CUT = {**RUN, "level": 2}
CLOCKED = {**CUT, "clock": 2, "adaptor": "identity"}


def test_flops_of_levels_clocks_and_branches():
    assert formulas.translation_flops(RUN, COUNTS, "flops") == 3 * 5 * 3000
    assert formulas.translation_flops(CUT, COUNTS, "flops") == 3 * 5 * 2000
    # Full at steps 1, 3 and 5.
    clocked = formulas.translation_flops(CLOCKED, COUNTS, "flops")
    assert clocked == 3 * (3 * 2000 + 2 * 500)
    branched = {**COUNTS, "task": "control", "branch": {"flops": 10}}
    # Once with the prompt, once without; ControlNet runs at light steps too.
    clocked = formulas.translation_flops(CLOCKED, branched, "flops")
    assert clocked == 2 * (3 * 2000 + 2 * 500 + 5 * 10)
    with pytest.raises(
        ValueError, match="'identity' is not one of those counted: none"
    ):
        formulas.translation_flops(CLOCKED, {**COUNTS, "adaptors": {}}, "flops")


def test_a_translation_fills_a_row():
    scores = {
        "psnr": {"value": 20.0, "low": 19.0, "high": 21.0, "n": 48},
        "lpips": {"value": 0.2, "low": 0.1, "high": 0.3, "n": 48},
    }
    columns = ("kept_published", "kept", "parameters", "saving", "psnr_to_target", "n")
    spec = tables.TableSpec(
        "T",
        "C",
        (*columns, "clip_direction"),
        (
            tables.Row("D2", "cut", "whole", {"kept": 60.8}),
            tables.Row("whole", "whole"),
        ),
    )
    results = Results(
        runs={"whole": RUN, "cut": CUT},
        scores={"cut": {"scores": scores}},
        levels={"ip2p": COUNTS},
    )
    table = spec.table(results)
    cut, whole = ([row[name] for name in spec.columns] for row in table.rows)
    assert cut[:4] == [60.8, 198 / 360, 200, pytest.approx(-1 / 3)]
    assert cut[4:] == [Value(20.0, 19.0, 21.0), 48, None]
    assert whole[1] == 1.0 and whole[2] == 300 and whole[3] is None
    assert "|60.8|55.0|" in table.markdown().replace(" ", "")
