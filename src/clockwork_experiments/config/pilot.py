"""The pilot's table: the rows of Table 1 that its runs fill, and how many captions."""

from __future__ import annotations

import copy

from clockwork_experiments.config.experiments import Settings

COLUMNS = (
    *("frechet", "clip", "psnr_to_teacher", "tflops", "tflops_kept", "saving"),
    *("tflops_with_attention", "latency", "latency_saving", "n"),
    *("fid_published", "clip_published", "tflops_published"),
)
BRIEF = (
    *("label", "fid_published", "clip_published", "frechet", "clip"),
    *("psnr_to_teacher", "tflops", "saving"),
)
PASTED = BRIEF[:-1]


def with_pilot_table(papers: Settings, pilot: Settings) -> Settings:
    """Return the papers, Table 1 with its counterpart of the pilot.

    Args:
        papers: What each paper shows.
        pilot: The sections of the pilot.
    """
    item = papers["clockwork"]["tables"].get("table_1", {})
    if "rows" not in item.get("mini", {}) or "sd" not in pilot["runs"]:
        return papers
    printed = {row["run"]: row.get("published") for row in item["mini"]["rows"]}
    rows = [row for row in item["mini"]["rows"] if row["run"] in pilot["runs"]]
    named = {row["run"] for row in rows}
    # What a user adds, and what mini scale has no row for.
    dataset = pilot["runs"]["sd"]["dataset"]
    named.add(pilot["datasets"][dataset].get("sampled", ""))
    rows += [
        {"label": _label(name, run), "run": name, "ours": True, **_baseline(run)}
        for name, run in pilot["runs"].items()
        if name not in named and run["dataset"] == dataset
    ]
    learned = printed.get("sd_clockwork")
    if learned:
        label = "+ Clockwork, learned adaptor (published)"
        rows.insert(1, {"label": label, "published": learned})
    papers = copy.deepcopy(papers)
    papers["clockwork"]["tables"]["table_1"]["pilot"] = {
        "title": "Table 1, pilot at paper scale: Stable Diffusion without training",
        "caption": _caption(pilot),
        "brief": list(BRIEF),
        "pasted": list(PASTED),
        "columns": list(COLUMNS),
        "rows": rows,
    }
    return papers


def _label(name: str, run: Settings) -> str:
    """Return how a row is called: plain runs of the baseline's UNet by their steps."""
    plain = run["model"] == "sd" and not {"adaptor", "level"} & run.keys()
    return f"SD UNet, {run['sampler']['steps']} steps" if plain else name


def _baseline(run: Settings) -> Settings:
    return {"baseline": run["teacher"]} if "teacher" in run else {}


def _caption(pilot: Settings) -> str:
    """Return what a reader must know, the number of captions first."""
    run = pilot["runs"]["sd"]
    data = pilot["datasets"][run["dataset"]]
    count, seeds = data["count"], data.get("seeds", 1)
    many = f"{seeds} images" if seeds > 1 else "1 image"
    if "sampled" in data:
        refers = "the same model's images of the same captions from other noise"
    else:
        refers = f"the {count:,} images that the captions are of"
    place, steps = data.get("path", run["dataset"]), run["sampler"]["steps"]
    return (
        f"Pilot, n = {count:,} captions of {place}, {many} of each, the same noise in "
        "all rows: compare rows, and nothing with the printed values of 5,000. "
        f"Fréchet: distance to {refers}, biased upwards by so few. CLIP: ViT-g/14. "
        f"PSNR: to the baseline's image. {steps} DPM++ steps unless the row says "
        "otherwise. TFLOPs: all UNet passes of one image, guidance included. UNet ms: "
        "mean of interleaved runs on the machine that made the table. In brackets 95 %."
    )
