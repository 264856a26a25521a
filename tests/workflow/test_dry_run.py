import re
import resource
from pathlib import Path
from subprocess import CompletedProcess

import pytest
import yaml
from checkout import ROOT, bring, copy_checkout, jobs, resolved, snakemake

LINKED = ("profiles", "resources/mini", "src", "workflow")
EVERY = [
    (scale, kind, paper.stem, name, item[scale].get("on_request", False))
    for paper in sorted((ROOT / "workflow" / "papers").glob("*.yaml"))
    for kind in ("tables", "figures")
    for name, item in yaml.safe_load(paper.read_text("utf-8"))[kind].items()
    for scale in item
]
ITEMS = [(*names,) for *names, on_request in EVERY if not on_request]
ON_REQUEST = [name for *_, name, on_request in EVERY if on_request]
FREE = (
    *(("clockwork", f"figure_{name}") for name in ("3", "s1", "s2", "s8")),
    ("compression", "level_map"),
    ("compression", "figure_s3"),
)
"""Figures that the paper scale draws without weights."""
NEED_WEIGHTS = [
    item for item in ITEMS if item[:2] == ("paper", "figures") and item[2:] not in FREE
]
STEPS = ("figure_s2", "step_comparison", "search_progress")
KINDS = (
    *(("clockwork", f"figure_{name}") for name in ("1", "4", "6a", "s6", "s9")),
    *(("compression", name) for name in ("figure_s7", "depth_curves", *STEPS)),
)
SINGLE = [item for item in ITEMS if item[1] == "tables" or item[2:] in (*FREE, *KINDS)]
"""Every table, and a figure of each kind."""


Plan = dict[str, tuple[str, frozenset[str]]]
"""Of each file that a dry run would write: its rule, and what that job reads."""


def plan(output: str) -> Plan:
    """Return what the jobs of a dry run would write, and from what."""
    made: Plan = {}
    for job in re.findall(r"^rule \w+:\n(?:    .*\n)+", output, re.M):
        told = dict(re.findall(r"^    (input|output): (.*)$", job, re.M))
        rule, read = job.split()[1].rstrip(":"), told.get("input", "").split(", ")
        for file in filter(None, told.get("output", "").split(", ")):
            made[file] = (rule, frozenset(filter(None, read)))
    return made


def behind(planned: Plan, target: str) -> Plan:
    """Return of a plan what one target needs, itself included."""
    needed, waiting = {}, [target]
    while waiting:
        file = waiting.pop()
        if file in planned and file not in needed:
            needed[file] = planned[file]
            waiting += planned[file][1]
    return needed


@pytest.fixture(scope="module")
def checkout(tmp_path_factory) -> Path:
    return copy_checkout(tmp_path_factory.mktemp("checkout"), linked=LINKED)


@pytest.fixture(scope="module")
def whole(checkout) -> tuple[CompletedProcess[str], Plan]:
    """Return the dry run of the default target, and its plan."""
    done = snakemake(checkout, "--dry-run")
    return done, plan(done.stdout)


def test_default_target_builds_every_table_and_figure_of_the_laptop(whole):
    done, _ = whole
    assert done.returncode == 0, done.stdout
    planned = jobs(done.stdout)
    assert not {"fetch_source", "prepare_coco"} & set(planned)
    wanted = [item for item in ITEMS if item not in NEED_WEIGHTS]
    assert planned["set_table"] + planned["draw_figure"] == len(wanted)
    for scale, kind, paper, name in wanted:
        suffixes = ("csv", "md", "tex") if kind == "tables" else ("pdf", "png")
        for suffix in suffixes:
            file = f"results/{scale}/{kind}/{paper}/{name}.{suffix}"
            assert file in done.stdout, file
    # And a slice of the benchmark.
    assert "results/mini/benchmark/t2i/tables/slice.csv" in done.stdout
    methods = resolved("mini")["benchmark"].values()
    sliced = [each for each in methods if each.get("sliced")]
    assert planned["measure_method"] == len(sliced) < len(methods)
    assert "time_method" not in planned


def test_the_benchmark_is_a_target_of_its_own(checkout):
    done = snakemake(checkout, "--dry-run", "benchmark")
    assert done.returncode == 0, done.stdout
    planned, config = jobs(done.stdout), resolved("mini")
    methods = config["benchmark"]
    assert planned["measure_method"] == planned["time_method"] == len(methods)
    plans = [name for name, each in methods.items() if each["kind"] == "planned"]
    assert planned["make_plan"] == len(plans) == 18
    assert planned["measure_masks"] == len(config["benchmark_tasks"]["t2i"]["masks"])
    assert planned["sample_reference"] == planned["find_grids"] == 2


@pytest.mark.parametrize(
    ("scale", "kind", "paper", "name"),
    [item for item in SINGLE if item not in NEED_WEIGHTS],
)
def test_each_item_is_made_of_results_and_not_of_other_items(
    whole, scale, kind, paper, name
):
    suffix = "csv" if kind == "tables" else "pdf"
    target = f"results/{scale}/{kind}/{paper}/{name}.{suffix}"
    needed = behind(whole[1], target)
    rule = "set_table" if kind == "tables" else "draw_figure"
    shown = {file for file, (made, _) in needed.items() if made == rule}
    assert shown == {target}
    if scale == "paper":
        # Architecture alone: no weights are there, and none are needed.
        assert {made for made, _ in needed.values()} <= {
            *("count_flops", "count_levels", rule)
        }


def test_an_item_is_a_target_of_its_own(checkout, whole):
    target = "results/mini/tables/clockwork/table_1.csv"
    done = snakemake(checkout, "--dry-run", target)
    assert done.returncode == 0, done.stdout
    assert behind(plan(done.stdout), target) == behind(whole[1], target)


BROUGHT = (
    (
        "scores/sd_clockwork.json",
        ["stable_diffusion", "clip", "inception", "laion"],
    ),
    # The Efficient UNet is made from SD's.
    ("adaptors/efficient_resnet/config.json", ["stable_diffusion"]),
    ("features/coco2017/000.safetensors", ["clip", "coco2017"]),
    ("figures/clockwork/figure_s6.png", ["stable_diffusion"]),
    ("scores/edits/real/steps50.json", ["stable_diffusion", "imagenetr_real"]),
    ("figures/clockwork/figure_s9.png", ["stable_diffusion", "structure"]),
    ("figures/clockwork/figure_7.png", ["stable_diffusion"]),
    ("figures/compression/figure_s7.png", ["stablesr", "div2k_val_pairs"]),
    ("figures/compression/depth_curves.png", ["stablesr", "coco2017_train_pairs"]),
    ("figures/compression/step_comparison.png", ["controlnet"]),
)
"""Targets of the paper scale, and what is fetched for each."""


@pytest.fixture(scope="module")
def brought(checkout) -> Plan:
    """Return the plan of all targets that something is fetched for."""
    targets = [f"results/paper/{target}" for target, _ in BROUGHT]
    done = snakemake(checkout, "--dry-run", *targets)
    assert done.returncode == 0, done.stdout
    return plan(done.stdout)


@pytest.mark.parametrize(("target", "sources"), BROUGHT)
def test_weights_of_the_paper_scale_are_fetched_first(brought, target, sources):
    needed = behind(brought, f"results/paper/{target}")
    for name in sources:
        assert f"resources/paper/manifests/{name}.json" in needed, name


@pytest.mark.parametrize(
    ("table", "columns", "made"),
    [
        ("clockwork/table_1", ["frechet", "psnr_to_teacher"], "sample_images"),
        ("clockwork/table_editing", ["structure", "psnr_to_source"], "edit_images"),
        ("compression/comparison", ["clip_image", "lpips"], "translate_images"),
        ("compression/table_s4", [], "search_steps"),
    ],
)
def test_tables_wait_for_scores_if_they_are_to_show_them(
    checkout, table, columns, made
):
    target = f"results/paper/tables/{table}.md"
    options = ("--dry-run", "--printshellcmds", target)
    done = snakemake(checkout, *options)
    assert made not in jobs(done.stdout)
    told = snakemake(checkout, *options, "--config", "measured=True")
    assert told.returncode == 0, told.stdout
    assert jobs(told.stdout)[made] > 0
    for column in columns:
        assert f'"{column}"' in told.stdout and f'"{column}"' not in done.stdout


def test_what_takes_long_is_made_on_request_alone(checkout):
    assert ON_REQUEST == ["figure_s9_long"]
    done = snakemake(checkout, "--dry-run", "long_edits")
    assert done.returncode == 0, done.stdout
    for steps in (200, 500, 1000):
        for edit_set in ("real", "fake"):
            assert f"edits/{edit_set}/steps{steps}.json" in done.stdout


def test_unknown_id_in_a_path_is_no_target(checkout):
    done = snakemake(checkout, "--dry-run", "results/mini/scores/sd_typo.json")
    assert done.returncode == 1
    assert "results/mini/scores/sd_typo.json" in done.stdout


def test_nothing_of_a_dry_run_stays(checkout):
    assert not (checkout / "results").exists()
    assert not (checkout / "logs").exists()


@pytest.fixture(scope="module")
def paper_scale(tmp_path_factory) -> tuple[str, float]:
    """Return the dry run of the whole paper scale, and its seconds of CPU time."""
    folder = copy_checkout(tmp_path_factory.mktemp("brought"), linked=LINKED)
    # Not through the link: what is brought must not land in the checkout itself.
    assert not (folder / "resources").is_symlink()
    bring(folder)
    before = resource.getrusage(resource.RUSAGE_CHILDREN)
    done = snakemake(folder, "--dry-run", "paper_scale")
    after = resource.getrusage(resource.RUSAGE_CHILDREN)
    assert done.returncode == 0, done.stdout[-2000:]
    used = after.ru_utime + after.ru_stime - before.ru_utime - before.ru_stime
    return done.stdout, used


def test_the_paper_scale_is_one_target(paper_scale):
    output, _ = paper_scale
    for scale, kind, paper, name in ITEMS:
        suffix = "csv" if kind == "tables" else "pdf"
        file = f"results/{scale}/{kind}/{paper}/{name}.{suffix}"
        assert (file in output) == (scale == "paper"), file
    planned = jobs(output)
    config = resolved("paper")
    sets = config["datasets"]
    shards = sum(sets[run["dataset"]]["shards"] for run in config["runs"].values())
    assert planned["sample_images"] == shards
    sets = config["translation_sets"]
    shards = [
        sets[each["set"]].get("shards", 1) for each in config["translations"].values()
    ]
    assert planned["translate_images"] == sum(shards) > len(shards)
    assert planned["search_steps"] == len(config["step_searches"])
    assert planned["search_depth"] == len(config["depth_searches"])
    methods = config["benchmark"]
    assert planned["measure_method"] == planned["time_method"] == len(methods) > 50
    masks = config["benchmark_tasks"]["t2i"]["masks"]
    assert planned["measure_masks"] == len(masks)
    assert "results/paper/benchmark/ip2p/plans/ip2p_plan65.json" in output


def test_the_graph_of_the_paper_scale_is_built_soon(paper_scale):
    _, seconds = paper_scale
    assert seconds < 30


def test_the_dry_run_of_the_paper_scale_says_what_it_would_cost(paper_scale):
    output, _ = paper_scale
    assert output.count("Estimated costs (A100, fp16; published") == 1
    table = output.split("Estimated costs", 1)[1].split("all  ")[0]
    cost = dict(re.findall(r"^(\w+) +\d+ +([\d.]+) ", table, re.M))
    # The Efficient and Distilled UNets: 26 M passes of 14.7 ms.
    assert 90 < float(cost["make_backbone"]) < 120
    assert float(cost["sample_images"]) > 10 and "set_table" not in cost


def test_other_dry_runs_say_nothing_of_costs(checkout):
    done = snakemake(checkout, "--dry-run", "results/mini/scores/sd.json")
    assert done.returncode == 0 and "Estimated costs" not in done.stdout
