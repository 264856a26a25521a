import pytest

from clockwork_diffusion import tables

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
RESULTS = tables.Results(
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
    shown = tables.to_markdown(chosen, tables.fill(chosen, RESULTS)).splitlines()
    cells = [[c.strip() for c in line.split("|")[1:-1]] for line in shown[4:7]]
    assert cells == [
        ["Other & Co.", "26.90", "—", "—", "—", "—"],
        ["SD", "—", "0.3000 [0.2900, 0.3100]", "—", "—", "500"],
        ["+ Clockwork (ours)", "—", "—", "−30 %", "−25 %", "—"],
    ]


def test_csv_holds_every_number_with_its_interval():
    chosen = spec(["clip", "gflops"])
    frame = tables.to_frame(chosen, tables.fill(chosen, RESULTS))
    assert list(frame["clip_low"])[1] == 0.29
    assert list(frame["gflops"])[1:] == [1600.0, 1120.0]


def test_latex_is_escaped():
    chosen = spec(["fid_published", "saving"])
    text = tables.to_latex(chosen, tables.fill(chosen, RESULTS), "table_1")
    assert r"Other \& Co." in text
    assert r"A 100 \% caption." in text
    assert "—" not in text and "−" not in text and r"$-$30 \%" in text


def test_unknown_columns_are_refused():
    with pytest.raises(ValueError, match="column 'beauty' is not one of"):
        spec(["beauty"])
