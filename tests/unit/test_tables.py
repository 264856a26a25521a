import csv
import io
import json
import re

import pytest
import set_step

from clockwork_experiments.base import storage
from clockwork_experiments.report.tables import results as tables
from clockwork_experiments.report.tables.table import Results

COUNTS = {
    "full": {"flops": 100.0, "flops_with_attention": 120.0},
    "adaptors": {"resnet": {"step": {"flops": 40.0, "flops_with_attention": 60.0}}},
}
RUNS = {
    "sd": {"model": "sd", "adaptor": "", "sampler": {"steps": 8, "guidance": 4.0}},
    "clocked": {
        "model": "sd",
        "adaptor": "resnet",
        "sampler": {"steps": 8, "guidance": 4.0, "clock": 2},
    },
}
SCORES = {
    "sd": {"scores": {"clip": {"value": 0.3, "low": 0.29, "high": 0.31, "n": 500}}}
}
RESULTS = Results(
    RUNS,
    SCORES,
    {"sd": COUNTS},
    {"runs": {"sd": {"mean_ms": 200.0}, "clocked": {"mean_ms": 150.0}}},
)


def spec(columns: list[str]) -> tables.TableSpec:
    rows = (
        tables.Row("Other & Co.", published={"fid": 26.9}),
        tables.Row("SD", run="sd"),
        tables.Row("+ Clockwork", run="clocked", baseline="sd", ours=True),
    )
    return tables.TableSpec("Table", "A 100 % caption.", tuple(columns), rows)


def test_cells():
    chosen = spec(["fid_published", "clip", "saving", "latency_saving", "n"])
    shown = chosen.table(RESULTS).markdown().splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in shown[4:7]]
    assert cells == [
        ["Other & Co.", "26.90", "—", "—", "—", "—"],
        ["SD", "—", "0.3000 [0.2900, 0.3100]", "—", "—", "500"],
        ["+ Clockwork (ours)", "—", "—", "−30 %", "−25 %", "—"],
    ]


def test_rows_of_the_identity_say_both_flops_and_others_one():
    counts = {**COUNTS, "adaptors": {"resnet": {**COUNTS["adaptors"]["resnet"]}}}
    counts["adaptors"]["resnet"]["step_after_upsampler"] = {"flops": 30.0}
    results = Results(RUNS, flops={"sd": counts})
    chosen = spec(["gflops", "gflops_kept", "mflops_per_call_kept"])
    rows = chosen.table(results).rows
    assert [[row[name] for name in chosen.columns] for row in rows] == [
        [None, None, None],
        [2 * 800, None, None],
        [2 * (400 + 160), 2 * (400 + 120), 2 * 30],
    ]


def test_csv_holds_every_number_with_its_interval():
    chosen = spec(["clip", "gflops"])
    rows = list(csv.DictReader(io.StringIO(chosen.table(RESULTS).csv())))
    assert rows[1]["clip_low"] == "0.29"
    assert [row["gflops"] for row in rows[1:]] == ["1600.0", "1120.0"]
    assert (rows[2]["row"], rows[2]["run"]) == ("+ Clockwork", "clocked")
    assert rows[2]["ours"] == "True"


def test_latex_is_escaped():
    chosen = spec(["fid_published", "saving"])
    text = chosen.table(RESULTS).latex("table_1")
    assert r"Other \& Co." in text
    assert r"A 100\,\% caption." in text
    assert "—" not in text and "−" not in text and r"$-$30\,\%" in text


# --- edited runs ------------------------------------------------------------------

EDITED = {
    f"real/{edit}/steps100": {
        "model": "sd",
        "inversion": {"steps": 100, "clock": clock, "adaptor": adaptor},
        "generation": {
            "steps": 50,
            "clock": clock,
            "adaptor": adaptor,
            "guidance": 15.0,
            "tau_f": 0.8,
            "drop_source": False,
            "features": "latents",
            "negative_prompt": "",
        },
    }
    for edit, clock, adaptor in (("pnp", 1, ""), ("clocked", 2, "identity"))
}
EDIT_SCORES = {
    "real/pnp/steps100": {
        "scores": {
            "clip": {"value": 0.27, "low": 0.26, "high": 0.28, "n": 30},
            "structure": {"value": 0.04567, "low": 0.04, "high": 0.05, "n": 30},
            "psnr_to_true": {"value": 21.256, "low": None, "high": None, "n": 30},
        }
    }
}


def edited(columns: list[str], **change) -> list[list[str]]:
    """Return what is written in the cells of two edited runs and a sampled one."""
    name = "real/pnp/steps100"
    published = {"tflops_recounted": 169.4, "edit_latency": 22.0}
    rows = (
        tables.Row("PnP", run=name, published=published),
        tables.Row("+ Clockwork", run="real/clocked/steps100", baseline=name),
        tables.Row("SD", run="sd"),
    )
    spec = tables.TableSpec("Table", "Caption.", tuple(columns), rows)
    results = Results(
        runs={**RUNS, **EDITED},
        scores=EDIT_SCORES,
        flops={"sd": COUNTS},
        latency={"runs": {"real/pnp/steps100": {"mean_ms": 1.0}}},
        **change,
    )
    lines = spec.table(results).markdown().splitlines()
    return [[c.strip() for c in line.split("|")[2:-1]] for line in lines[4:7]]


def test_scores_and_settings_of_edited_runs():
    columns = ["structure", "psnr_to_true", "n", "inversion_steps", "generation_steps"]
    assert edited([*columns, "tflops_recounted", "edit_latency_published"]) == [
        ["0.0457 [0.0400, 0.0500]", "21.26", "30", "100", "50", "169.4", "22.0"],
        ["—", "—", "—", "100", "50", "—", "—"],
        ["—"] * 7,
    ]


def test_memory_and_latency_of_edited_runs():
    timed = {
        "pnp/steps100": {"mean_ms": 22000.0},
        "clocked/steps100": {"mean_ms": 1.65e4},
    }
    cells = edited(
        ["memory_mb", "edit_latency", "edit_latency_saving", "latency"],
        edit_latency={"runs": timed, "memory": {"clocked/steps100": 3280000}},
    )
    assert cells == [
        ["—", "22.00", "—", "1"],
        ["3.3", "16.50", "−25 %", "—"],
        ["—"] * 4,
    ]


def test_profiles_of_edited_runs_and_sources_that_cost_nothing():
    profiles = {"sd": {"runs": {"pnp/steps100": {"profiled": 1.234e9}}}}
    cells = edited(["gflops_profiled"], profiles=profiles)
    assert cells == [["1.234"], ["—"], ["—"]]
    # Eqs. 2–4: 100 passes of one row, and 50 of three.
    one = Results({**EDITED, **RUNS}, flops={"sd": COUNTS})
    column = tables.COLUMNS["tflops_printed"]
    value = tables.cell(column, tables.Row("", run="real/pnp/steps100"), one)
    assert value == 250 * COUNTS["full"]["flops"]
    assert tables.cell(column, tables.Row("", run="sd"), one) is None
    unedited = Results({"real/unedited/s": {}}, flops={"sd": COUNTS})
    row = tables.Row("", run="real/unedited/s")
    for name in ("gflops", "saving", "tflops_printed", "gflops_profiled"):
        assert tables.cell(tables.COLUMNS[name], row, unedited) is None


def test_flops_of_edited_runs_are_those_of_their_settings(monkeypatch):
    def flops(run, counts, key, *, by_steps=False):
        if "sampler" in run:
            return 1e12
        steps = run["inversion"]["steps"] + 3 * run["generation"]["steps"]
        return steps * counts["full"][key] * 1e10 / run["generation"]["clock"]

    monkeypatch.setattr(tables, "run_flops", flops)
    columns = ["tflops", "saving", "tflops_by_steps", "gflops_per_call"]
    assert edited(columns) == [
        ["250.000", "—", "—", "—"],
        ["125.000", "−50 %", "—", "—"],
        ["1.000", "—", "1.000", "0.0"],
    ]


# --- settings ---------------------------------------------------------------------


def settings(*rows: tables.SettingRow) -> tables.SettingsSpec:
    return tables.SettingsSpec("Settings", "Caption.", "real/clocked/steps100", rows)


SETTINGS = settings(
    tables.SettingRow("Inversion steps", "", "inversion.steps"),
    tables.SettingRow("Guidance", "15.0", "generation.guidance"),
    tables.SettingRow("τ_f", "0.8", "generation.tau_f"),
    tables.SettingRow("Drop", ours="generation.drop_source"),
    tables.SettingRow("Negative", "ugly | blurry", "generation.negative_prompt"),
    tables.SettingRow("Prompt", "a <style> of an <instance>", text="a caption"),
)


def test_settings_stand_beside_the_papers():
    table = SETTINGS.table(Results(EDITED))
    assert list(table.columns) == ["setting", "published", "ours"]
    found = [row["ours"] for row in table.rows]
    assert found == ["100", "15", "0.8", "False", None, "a caption"]
    shown = table.markdown().splitlines()
    assert shown[0] == "**Settings**" and shown[-1] == "Caption."
    cells = [
        [c.strip() for c in re.split(r"(?<!\\)\|", line)[1:-1]] for line in shown[4:10]
    ]
    assert cells[0] == ["Inversion steps", "—", "100"]
    assert cells[4] == ["Negative", r"ugly \| blurry", "—"]
    assert cells[5][1] == "a &lt;style&gt; of an &lt;instance&gt;"
    latex = table.latex("table_s4")
    assert r"a \textless{}style\textgreater{} of an" in latex
    assert r"$\tau$\_f & 0.8 & 0.8" in latex
    assert r"Inversion steps & --- & 100" in latex
    assert "tab:table_s4" in latex and "—" not in latex


def test_plain_values():
    values = [0.5, 1e-06, 50, True, None, (2, 0.5), "DDIM"]
    shown = ["0.5", "1e-06", "50", "True", "", "2, 0.5", "DDIM"]
    assert [tables.plain(value) for value in values] == shown


def test_settings_refuse_what_there_is_not():
    odd = settings(tables.SettingRow("Odd", ours="generation.beauty"))
    with pytest.raises(ValueError, match="'beauty' is not one of steps, clock, adap"):
        odd.table(Results(EDITED))
    deep = settings(tables.SettingRow("Deep", ours="inversion.steps.more"))
    with pytest.raises(ValueError, match="'more' is not one of none"):
        deep.table(Results(EDITED))


# --- the step ---------------------------------------------------------------------


def run_step(tmp_path, **given) -> str:
    set_step.table(**{"output": tmp_path / "table.csv", **given})
    assert (tmp_path / "table.tex").is_file() and (tmp_path / "table.md").is_file()
    return (tmp_path / "table.csv").read_text()


def test_the_step_sets_a_table_of_edited_runs(tmp_path):
    scores = tmp_path / "edits" / "real" / "steps100.json"
    storage.write_json(
        scores, {"edits": {"pnp": EDIT_SCORES["real/pnp/steps100"]["scores"]}}
    )
    sampled = tmp_path / "sd.json"
    storage.write_json(sampled, {"run": "sd", **SCORES["sd"]})
    timed = {
        "runs": {"pnp/steps100": {"mean_ms": 2500.0}},
        "memory": {"pnp/steps100": 2000000},
    }
    storage.write_json(tmp_path / "editing.json", timed)
    spec = {
        "title": "T",
        "caption": "C",
        "columns": ["structure", "n", "memory_mb", "edit_latency"],
        "rows": [
            {"label": "PnP", "run": "real/pnp/steps100"},
            {"label": "SD", "run": "sd"},
        ],
    }
    written = run_step(
        tmp_path,
        spec=json.dumps(spec),
        runs=json.dumps({**RUNS, **EDITED}),
        scores=[scores, sampled],
        edit_latency=tmp_path / "editing.json",
    )
    rows = written.splitlines()
    assert rows[0].endswith(
        "structure,structure_low,structure_high,n,memory_mb,edit_latency"
    )
    assert rows[1].endswith(",0.04567,0.04,0.05,30,2000000.0,2500.0")
    assert rows[2] == "SD,sd,False,,,,500,,"


def test_the_step_sets_a_table_of_settings(tmp_path):
    spec = {
        "title": "T",
        "caption": "C",
        "run": "real/pnp/steps100",
        "rows": [
            {"label": "Guidance", "published": "15.0", "ours": "generation.guidance"}
        ],
    }
    given = {"spec": json.dumps(spec), "runs": json.dumps(EDITED)}
    written = run_step(tmp_path, kind="settings", **given)
    assert written.splitlines() == ["setting,published,ours", "Guidance,15.0,15"]
    assert "| Guidance  | 15.0  " in (tmp_path / "table.md").read_text()
    with pytest.raises(ValueError, match="kind 'odd' is not one of benchmark, "):
        run_step(tmp_path, kind="odd", **given)


def test_unknown_columns_are_refused():
    with pytest.raises(ValueError, match="column 'beauty' is not one of"):
        spec(["beauty"])
