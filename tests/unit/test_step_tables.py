"""Tables of time steps: printed values, ours, and what AutoDiffusion takes longer."""

import csv
import dataclasses
import io
import json
import math

import pytest
import set_step
import yaml
from checkout import ROOT

from clockwork_experiments.base import storage
from clockwork_experiments.config.parse import parse
from clockwork_experiments.report import kinds
from clockwork_experiments.report.tables.table import UNKNOWN, Results, Table
from clockwork_experiments.report.tables.timesteps import (
    METHODS,
    GammaColumn,
    GammaTableSpec,
    ScoreTableSpec,
    StepRows,
    gamma_of,
    printed_seconds,
)

REGISTRY = yaml.safe_load(
    (ROOT / "workflow" / "papers" / "compression.yaml").read_text("utf-8")
)["tables"]
TABLES = ("table_3", "table_4", *(f"table_s{n}" for n in (1, 2, 3, 4, 5, 9)))
GREEDY, EVOLVED = METHODS["greedy"], METHODS["evolution_frechet"]


def score(value: float, half: float = 0.5) -> dict:
    return {"value": value, "low": value - half, "high": value + half, "n": 48}


def entry(method: str, steps: int, gamma: float | None = None, **changes) -> dict:
    """Return a search's answer, whose heldout scores tell methods apart."""
    rank = list(METHODS).index(method)
    found = {
        "steps": steps,
        "method": method,
        "gamma": gamma,
        "timesteps": [999, 500],
        "quality": 27.1,
        "evaluations": 12,
        "unet_calls": 1920,
        "seconds": 33.25,
        "trials": [],
        "search": {},
        "heldout": {
            "scores": {
                "psnr_to_teacher": score(20.0 + rank),
                "clip_direction": score(0.1, 0.01),
            },
            "frechet": 12.346 if method == "greedy" else None,
            "pairs": {},
        },
    }
    if method != "uniform":
        found["heldout"]["minus_uniform"] = {
            "psnr_to_teacher": score(float(rank)),
            "clip_direction": score(-0.002, 0.001),
        }
    return found | changes


def search(*entries: dict) -> dict:
    return {
        "task": "edit",
        "reference": 50,
        "pairs": {"search": 16, "heldout": 48},
        "references": {"unet_calls": 1600, "seconds": 9.12},
        "searches": list(entries),
    }


SPEC = ScoreTableSpec(
    "Table S4",
    "A caption.",
    (
        *("label", "steps", "method", "psnr_published", "time_published"),
        *("speed_up_published", "gamma", "frechet", "psnr_to_teacher"),
        *("psnr_to_teacher_minus_uniform", "clip_direction_minus_uniform", "n"),
        *("evaluations", "seconds", "unet_calls"),
        *("speed_up_seconds", "speed_up_unet_calls"),
    ),
    (
        StepRows(
            "InstructPix2Pix",
            5,
            "ip2p",
            published={
                "evolution_frechet": {"psnr": "22.350", "time": "40.5 h"},
                "greedy": {"psnr": "22.250", "time": "38.7 min"},
            },
        ),
    ),
)
FOUND = {
    "ip2p": search(
        # What the uniform steps' one pass took is no search.
        entry("uniform", 5, 1.0, evaluations=1, unet_calls=160, seconds=2.0),
        entry("greedy", 5, 0.3216),
        entry("bracketed", 5, 0.4, seconds=66.5, unet_calls=960),
        entry("evolution_psnr", 5, unet_calls=9600, seconds=160.0),
        entry("evolution_frechet", 5, evaluations=60, unet_calls=7680, seconds=133.0),
        entry("greedy", 10, 0.5, unet_calls=1),
    )
}


def shown(spec, found) -> dict[str, dict]:
    """Return the rows as people read them, by method."""
    return {row["method"]: row for row in table_of(spec, found).text()}


def table_of(spec, found) -> Table:
    return spec.table(Results({}, step_searches=found))


# --- scores and costs ---------------------------------------------------------------


def test_ours_stands_beside_what_is_printed():
    rows = shown(SPEC, FOUND)
    assert list(rows) == list(METHODS.values())
    greedy = rows[GREEDY]
    assert (greedy["label"], greedy["steps"]) == ("InstructPix2Pix", "5")
    assert (greedy["psnr_published"], greedy["time_published"]) == (
        "22.250",
        "38.7 min",
    )
    assert greedy["gamma"] == "0.322"
    assert greedy["psnr_to_teacher"] == "23.00 [22.50, 23.50]"
    # No interval is given, so none is shown.
    assert greedy["frechet"] == "12.35"
    assert greedy["n"] == "48"
    # Neither what is run at other numbers of steps, nor printed of others.
    assert greedy["unet_calls"] == "1920"
    bracketed = rows[METHODS["bracketed"]]
    assert bracketed["psnr_published"] == bracketed["frechet"] == UNKNOWN


def test_differences_are_signed_with_intervals():
    rows = shown(SPEC, FOUND)
    greedy = rows[GREEDY]
    assert greedy["psnr_to_teacher_minus_uniform"] == "+3.00 [+2.50, +3.50]"
    assert greedy["clip_direction_minus_uniform"] == "−0.0020 [−0.0030, −0.0010]"
    assert rows["uniform"]["psnr_to_teacher_minus_uniform"] == UNKNOWN
    assert rows["uniform"]["psnr_to_teacher"] == "20.00 [19.50, 20.50]"


def test_speed_ups_are_over_autodiffusion_by_distance():
    rows = shown(SPEC, FOUND)
    # 40.5 h in minutes, by 38.7.
    assert rows[GREEDY]["speed_up_published"] == "62.8×"
    assert rows[EVOLVED]["speed_up_published"] == "1.0×"
    assert rows[METHODS["evolution_psnr"]]["speed_up_published"] == UNKNOWN
    assert rows[GREEDY]["speed_up_seconds"] == "4.0×"
    assert rows[GREEDY]["speed_up_unet_calls"] == "4.0×"
    # Fewer UNet evaluations that took longer: the two differ.
    assert rows[METHODS["bracketed"]]["speed_up_seconds"] == "2.0×"
    assert rows[METHODS["bracketed"]]["speed_up_unet_calls"] == "8.0×"
    assert rows[METHODS["evolution_psnr"]]["speed_up_unet_calls"] == "0.8×"
    assert rows[EVOLVED]["speed_up_seconds"] == "1.0×"
    for name in ("evaluations", "seconds", "unet_calls", "speed_up_seconds"):
        assert rows["uniform"][name] == UNKNOWN, name


def test_speed_ups_are_over_autodiffusion_by_psnr_where_that_alone_has_run():
    entries = [
        e for e in FOUND["ip2p"]["searches"] if e["method"] != "evolution_frechet"
    ]
    rows = shown(SPEC, {"ip2p": search(*entries)})
    assert rows[GREEDY]["speed_up_unet_calls"] == "5.0×"
    neither = [e for e in entries if e["method"] != "evolution_psnr"]
    rows = shown(SPEC, {"ip2p": search(*neither)})
    assert rows[GREEDY]["speed_up_unet_calls"] == UNKNOWN
    assert rows[GREEDY]["unet_calls"] == "1920"


def test_what_has_not_run_is_a_dash():
    some = {"ip2p": search(entry("uniform", 5, 1.0), entry("greedy", 5, 0.5))}
    markdown = table_of(SPEC, some).markdown()
    for line in markdown.splitlines():
        if "AutoDiffusion, F" in line:  # printed, and not run
            cells = [cell.strip() for cell in line.strip("|").split("|")]
            assert cells[3:6] == ["22.350", "40.5 h", "1.0×"]
            assert set(cells[6:]) == {"—"}
            break
    else:
        pytest.fail(markdown)
    rows = shown(SPEC, {})
    assert all(row["psnr_to_teacher"] == UNKNOWN for row in rows.values())
    assert rows[GREEDY]["speed_up_published"] == "62.8×"


def test_csv_has_numbers_and_ends_of_intervals():
    text = table_of(SPEC, FOUND).csv()
    rows = {row["method"]: row for row in csv.DictReader(io.StringIO(text))}
    greedy = rows[GREEDY]
    assert float(greedy["psnr_to_teacher_low"]) == 22.5
    assert float(greedy["clip_direction_minus_uniform_high"]) == -0.001
    assert float(greedy["gamma"]) == 0.3216 and float(greedy["seconds"]) == 33.25
    assert greedy["psnr_published"] == "22.250"
    assert float(greedy["speed_up_published"]) == pytest.approx(40.5 * 60 / 38.7)
    assert rows["uniform"]["seconds"] == ""
    # A column without intervals, and a score that the table does not show, have none.
    assert "frechet_low" not in greedy and "clip_direction_low" not in greedy
    assert list(greedy)[:3] == ["label", "steps", "method"]


def test_notes_say_which_pairs_and_what_references_took():
    assert table_of(SPEC, FOUND).caption == (
        "A caption. Ours: searched on 16 pairs, scored on 48 others; the reference of "
        "50 steps took 1600 UNet evaluations and 9.1 s more."
    )
    assert table_of(SPEC, {}).caption == "A caption."
    other = search() | {"pairs": {"search": 8, "heldout": 24}}
    both = dataclasses.replace(SPEC, rows=(*SPEC.rows, StepRows("StableSR", 5, "sr")))
    text = table_of(both, {**FOUND, "sr": other}).caption
    assert " InstructPix2Pix: searched on 16 pairs" in text
    assert " StableSR: searched on 8 pairs, scored on 24 others" in text


# --- γ --------------------------------------------------------------------------------

GAMMAS = GammaTableSpec(
    "Table S2",
    "A caption.",
    (5, 10),
    (
        GammaColumn("InstructPix2Pix", "ip2p", ("0.322", "0.556")),
        GammaColumn("StableSR", "stablesr", ("1.900", "1.600")),
        GammaColumn("ours alone"),
    ),
)


def test_gammas_stand_below_what_is_printed():
    table = table_of(GAMMAS, FOUND)
    assert list(table.columns) == [
        *("steps", "method", "InstructPix2Pix", "StableSR", "ours alone")
    ]
    found = [tuple(row.values()) for row in table.text()]
    assert found == [
        ("5", "published", "0.322", "1.900", UNKNOWN),
        ("5", GREEDY, "0.322", UNKNOWN, UNKNOWN),
        ("5", METHODS["bracketed"], "0.400", UNKNOWN, UNKNOWN),
        ("10", "published", "0.556", "1.600", UNKNOWN),
        ("10", GREEDY, "0.500", UNKNOWN, UNKNOWN),
        ("10", METHODS["bracketed"], UNKNOWN, UNKNOWN, UNKNOWN),
    ]
    assert table.caption == "A caption. Ours: searched on 16 pairs."
    latex = table.latex("table_s2")
    assert "$\\gamma$, greedy search" in latex and "γ" not in latex


def test_a_gamma_of_resampled_searches_has_an_interval():
    again = [0.4 * math.exp(0.1 * k) for k in (-1, 0, 1)]
    found = gamma_of(entry("bracketed", 5, 0.4, resampled=again))
    # Student's t with 2 degrees of freedom, of a standard error of 0.1 in ln γ.
    assert found.low == pytest.approx(0.4 * math.exp(-0.43027), rel=1e-4)
    assert found.high == pytest.approx(0.4 * math.exp(0.43027), rel=1e-4)
    assert gamma_of(entry("bracketed", 5, 0.4)).low is None
    assert gamma_of({}) is None


# --- what is refused ------------------------------------------------------------------


def test_wrong_names_are_refused_in_one_line():
    with pytest.raises(ValueError, match="method 'genetic' is not one of uniform, "):
        StepRows("M", 5, methods=("genetic",))
    with pytest.raises(ValueError, match="'greedy' is published, and not one of those"):
        StepRows("M", 5, methods=("uniform",), published={"greedy": {"psnr": "1"}})
    with pytest.raises(ValueError, match="psnr '22,3' is not a printed number"):
        StepRows("M", 5, published={"greedy": {"psnr": "22,3"}})
    with pytest.raises(ValueError, match="time '40.5 d' is not a number with a unit"):
        StepRows("M", 5, published={"greedy": {"time": "40.5 d"}})
    with pytest.raises(ValueError, match="column 'ssim' is not one of label, steps, "):
        ScoreTableSpec("T", "C", ("ssim",), ())
    rows = StepRows("M", 5, published={"greedy": {"psnr": "22.3"}})
    with pytest.raises(ValueError, match="'psnr_published' is not one of the columns"):
        ScoreTableSpec("T", "C", ("steps", "method"), (rows,))
    with pytest.raises(ValueError, match="1 values are published as 'a', and there"):
        GammaTableSpec("T", "C", (5, 10), (GammaColumn("a", published=("1",)),))
    with pytest.raises(ValueError, match="'a' is the label of more than one column"):
        GammaTableSpec("T", "C", (5,), (GammaColumn("a"), GammaColumn("a", "ip2p")))


def test_printed_times():
    assert printed_seconds("38.7 min") == pytest.approx(2322)
    assert printed_seconds("27.1 h") == pytest.approx(97560)


# --- the paper's tables ---------------------------------------------------------------


def registered(name: str, scale: str):
    table = dict(REGISTRY[name][scale])
    return parse(kinds.find(kinds.TABLES, table.pop("kind")), table)


PRINTED_GAMMAS = {
    "table_s1": {
        5: ["0.322", "0.333", "0.377", "0.435"],
        10: ["0.556", "0.581", "0.617", "0.704"],
        15: ["0.709", "0.714", "0.833", "0.833"],
    },
    "table_s2": {
        5: ["0.322", "0.322", "1.900", "1.900", "1.900"],
        10: ["0.556", "0.556", "1.600", "1.600", "1.600"],
        15: ["0.709", "0.714", "1.610", "1.610", "1.610"],
    },
}


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize("name", PRINTED_GAMMAS)
def test_gammas_are_as_printed(name, scale):
    spec = registered(name, scale)
    printed = {}
    for row in table_of(spec, {}).text():
        steps, method, *gammas = row.values()
        if method == "published":
            printed[int(steps)] = gammas
        else:
            assert set(gammas) == {UNKNOWN}
    assert printed == PRINTED_GAMMAS[name]


FRECHET = ("frechet", "clip", "aesthetic")
EDITED = ("clip_image", "clip_direction", "time", "speed_up")
RESTORED = ("frechet", "psnr", "lpips", "time", "speed_up")
PSNR = ("psnr_to_teacher",)
EDIT, RESTORE = "InstructPix2Pix", "StableSR"
PRINTED = {
    # Table, model, steps: columns, AutoDiffusion, the paper's own.
    ("table_s3", "ControlNet", 5): (FRECHET, "28.77 30.35 5.81", "28.26 30.38 5.85"),
    ("table_s3", "ControlNet", 10): (FRECHET, "24.21 30.39 5.98", "23.29 30.40 6.00"),
    ("table_s4", EDIT, 5): (
        EDITED,
        "0.765 0.188 40.5_h 1.0×",
        "0.767 0.190 38.7_min 62.8×",
    ),
    ("table_s5", RESTORE, 10): (
        RESTORED,
        "36.496 22.347 0.466 27.1_h 1.0×",
        "34.956 22.250 0.461 11.1_min 146.5×",
    ),
    ("table_s9", EDIT, 5): (PSNR, "18.73", "20.54"),
    ("table_s9", EDIT, 10): (PSNR, "24.33", "26.82"),
    ("table_s9", RESTORE, 5): (PSNR, "26.79", "27.41"),
    ("table_s9", RESTORE, 10): (PSNR, "30.58", "32.09"),
}


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize("table", ["table_s3", "table_s4", "table_s5", "table_s9"])
def test_scores_are_as_printed(table, scale):
    spec = registered(table, scale)
    rows = table_of(spec, {}).text()
    printed = {}
    groups = [rows[i : i + len(METHODS)] for i in range(0, len(rows), len(METHODS))]
    for of, group in zip(spec.rows, groups, strict=True):
        by_method = {row["method"]: row for row in group}
        names = tuple(
            column.removesuffix("_published")
            for column in spec.columns
            if column.endswith("_published")
        )
        texts = {
            method: [row[f"{name}_published"] for name in names]
            for method, row in by_method.items()
        }
        for method, values in texts.items():
            if method not in (GREEDY, EVOLVED):
                assert set(values) == {UNKNOWN}, method
        both = (
            " ".join(value.replace(" ", "_") for value in texts[method])
            for method in (EVOLVED, GREEDY)
        )
        printed[table, of.label, of.steps] = (names, *both)
    expected = {key: value for key, value in PRINTED.items() if key[0] == table}
    assert printed == expected


@pytest.mark.parametrize("scale", ["mini", "paper"])
@pytest.mark.parametrize("name", ["table_3", "table_4"])
def test_tables_whose_cells_are_unknown_print_nothing(name, scale):
    spec = registered(name, scale)
    columns = [column for column in spec.columns if column.endswith("_published")]
    assert len(columns) == 3
    for row in table_of(spec, {}).rows:
        assert [row[column] for column in columns] == [None] * 3
    assert "what its columns are, are not available" in spec.caption


@pytest.mark.parametrize("name", TABLES)
def test_scales_print_the_same(name):
    mini, paper = registered(name, "mini"), registered(name, "paper")
    assert table_of(mini, {}).rows == table_of(paper, {}).rows
    assert "mini scale" in mini.caption and "mini scale" not in paper.caption


@pytest.mark.parametrize("found", [FOUND, None])
@pytest.mark.parametrize("name", TABLES)
def test_step_writes_each_table(tmp_path, name, found):
    table = dict(REGISTRY[name]["paper"])
    kind = table.pop("kind")
    searches = []
    if found is not None:
        wanted = next(iter(registered(name, "paper").searches))
        searches.append(tmp_path / f"{wanted}.json")
        storage.write_json(searches[0], found["ip2p"])
    output = tmp_path / f"{name}.csv"
    set_step.table(
        kind=kind, spec=json.dumps(table), step_searches=searches, output=output
    )
    markdown = output.with_suffix(".md").read_text("utf-8")
    latex = output.with_suffix(".tex").read_text("utf-8")
    rows = list(csv.DictReader(io.StringIO(output.read_text("utf-8"))))
    assert len(rows) == len(table_of(registered(name, "paper"), {}).rows)
    assert ("searched on 16 pairs" in markdown) == (found is not None)
    # The search of Table S4 has another γ, and Table S5 shows none but in its CSV.
    shown = found is not None and name not in ("table_s4", "table_s5")
    assert ("0.500" in markdown) == shown
    assert "—" in markdown or (name == "table_s5" and found is None)
    assert not {"γ", "Δ", "↓", "×", "−"} & set(latex)
