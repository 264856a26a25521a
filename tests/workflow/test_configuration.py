"""A wrong value ends before anything runs, in a line that says what is allowed."""

import copy
from pathlib import Path

import pytest
from checkout import check_all, copy_checkout, edit_yaml, snakemake, written

LINKED = ("profiles", "resources/mini", "src")
CONFIG, PAPER = "config.yaml", "workflow/papers/clockwork.yaml"
COMPRESSION = "workflow/papers/compression.yaml"
RUN = "mini.runs.sd_clockwork"
EDIT = "mini.editing.edits.pnp_clock2"
TRANSLATION = "mini.translations.ip2p_d9"
TABLE = "tables.table_1.mini"
SOURCE = "paper.sources.lpips"
CASES = {
    "no archives of a set": (
        CONFIG,
        "paper.coco.coco2017.archives",
        "coco",
        "'coco'",
        "sources (stable_diffusion",
    ),
    "pairs made of pairs": (
        CONFIG,
        "paper.coco.coco2017_train_pairs.of",
        "coco2017_pairs",
        "'coco2017_pairs', which holds pairs",
    ),
    "a revision that is none": (
        CONFIG,
        "paper.sources.clip.revision",
        "main",
        "paper.sources.clip.revision: 'main'",
    ),
    "a revision without a repository": (
        CONFIG,
        f"{SOURCE}.revision",
        "0" * 40,
        "source 'lpips': a revision is of a hub",
    ),
    "a checksum that is none": (
        CONFIG,
        f"{SOURCE}.files",
        {"x": {"url": "http://x/y", "sha256": "12"}},
        f"{SOURCE}.files.x.sha256: '12'",
    ),
    "unknown key": (CONFIG, "mini.runs.sd.stepz", 6, "'stepz'", "known keys are model"),
    "unknown key, deep": (
        CONFIG,
        f"{RUN}.sampler.stepz",
        6,
        "sampler: ",
        "'stepz'",
        "known keys are scheduler, steps",
    ),
    "no steps": (CONFIG, f"{RUN}.sampler.steps", 0, f"{RUN}.sampler.steps: 0", "of 1"),
    "no clock": (CONFIG, f"{RUN}.sampler.clock", 0, f"{RUN}.sampler.clock: 0", "of 1"),
    "steps missing": (CONFIG, f"{RUN}.sampler.steps", None, f"{RUN}.sampler", "steps"),
    "unknown scheduler": (
        CONFIG,
        f"{RUN}.sampler.scheduler",
        "euler",
        "'euler'",
        "dpmpp|dpm|pndm|ddim|heun|",
    ),
    "unknown model": (CONFIG, f"{RUN}.model", "sdx", "'sdx'", "models (sd, efficient"),
    "unknown data set": (CONFIG, f"{RUN}.dataset", "coco", "'coco'", "(train, heldout"),
    "unknown adaptor": (
        CONFIG,
        f"{RUN}.adaptor",
        "sd_unet",
        "'sd_unet'",
        "adaptors (identity, extrapolation",
    ),
    "unknown teacher": (CONFIG, f"{RUN}.teacher", "sd_9", "'sd_9'", "runs (sd, "),
    "unknown cut": (
        CONFIG,
        "mini.trajectories.sd_train.spec.cut",
        "stage9",
        "'stage9'",
        "'stage1', 'stage2'",
    ),
    "unknown cut of an adaptor": (
        CONFIG,
        "mini.adaptors.sd_resnet.spec.cut",
        "stage9",
        "'stage9'",
        "'stage1', 'stage2'",
    ),
    "unknown cut of the identity": (
        CONFIG,
        "mini.adaptors.identity.cut",
        "stage9",
        "'stage9'",
        "'stage1', 'stage2'",
    ),
    "clock without an adaptor": (
        CONFIG,
        f"{RUN}.adaptor",
        None,
        "'sd_clockwork'",
        "both a clock above 1 and an adaptor",
    ),
    "adaptor without a clock": (
        CONFIG,
        f"{RUN}.sampler.clock",
        1,
        "'sd_clockwork'",
        "both a clock above 1 and an adaptor",
    ),
    "a run named as a data set": (
        CONFIG,
        "mini.runs.test",
        {
            "model": "sd",
            "dataset": "test",
            "seed": 0,
            "batch_size": 1,
            "sampler": {"scheduler": "ddim", "steps": 1, "guidance": 1.0},
        },
        "'test'",
        "a run and a data set",
    ),
    "a teacher of other prompts": (
        CONFIG,
        f"{RUN}.dataset",
        "heldout",
        "'sd_clockwork'",
        "'test'",
        "'heldout'",
    ),
    "trajectories of another cut": (
        CONFIG,
        "mini.trajectories.sd_heldout.spec.cut",
        "stage2",
        "'sd_heldout'",
        "'stage2'",
        "'stage1'",
    ),
    "unknown run in a table": (
        PAPER,
        f"{TABLE}.rows.1.run",
        "sd_typo",
        "table_1 at mini",
        "'sd_typo'",
        "runs (sd, efficient",
    ),
    "unknown column": (
        PAPER,
        f"{TABLE}.columns",
        ["frechet", "fidd"],
        "table_1 at mini",
        "'fidd'",
        "frechet, clip",
    ),
    "unknown key in a table": (PAPER, f"{TABLE}.titel", "x", "'titel'", "keys are ti"),
    "unknown run in a figure": (
        PAPER,
        "figures.figure_1.mini.runs.0.run",
        "sd_typo",
        "'sd_typo'",
        "runs (sd, efficient",
    ),
    "unknown prompt in a figure": (
        PAPER,
        "figures.figure_1.mini.prompts",
        [0, 48],
        "figure_1 at mini",
        "prompt 48",
        "of the 48",
    ),
    "edits that a figure's set lacks": (
        PAPER,
        "figures.figure_s10.mini.pairs",
        [0, 16],
        "figure_s10 at mini",
        "pair 16",
        "of the 16",
    ),
    "translations that a figure's set lacks": (
        COMPRESSION,
        "figures.figure_s5.mini.groups",
        [{"count": 2, "skip": 11}],
        "figure_s5 at mini",
        "pair 12",
        "of the 12",
    ),
    "an adaptor of another model": (
        CONFIG,
        "paper.runs.sd_clockwork.adaptor",
        "efficient_resnet",
        "'sd_clockwork'",
        "'sd'",
        "'efficient'",
    ),
    "unknown inversion": (
        CONFIG,
        f"{EDIT}.inversion",
        "clock3",
        "'clock3'",
        "inversions of editing (full, clock2",
    ),
    "an edit's clock without an adaptor": (
        CONFIG,
        f"{EDIT}.adaptor",
        None,
        "edit 'pnp_clock2'",
        "both a clock above 1 and an adaptor",
    ),
    "an edit's adaptor of another model": (
        CONFIG,
        f"{EDIT}.adaptor",
        "efficient_resnet",
        "edit 'pnp_clock2'",
        "'sd'",
        "'efficient'",
    ),
    "an edit at an unknown setting": (
        CONFIG,
        f"{EDIT}.settings",
        ["steps30"],
        "'steps30'",
        "settings of editing (steps10, ",
    ),
    "sampled scenes without a model": (
        CONFIG,
        "mini.edit_sets.fake.model",
        None,
        "'fake'",
        "need each other",
    ),
    "an injection beyond the steps": (
        CONFIG,
        f"{EDIT}.tau_f",
        1.5,
        "mini.editing.edits.pnp_clock2.tau_f",
        "1.5",
    ),
    "unknown edit in a table": (
        PAPER,
        "tables.table_editing.mini.rows.1.run",
        "real/pnp3/steps50",
        "'pnp3'",
        "edits of editing (pnp, pnp_clock2",
    ),
    "an edit that is not made at a setting": (
        PAPER,
        "tables.table_editing.mini.rows.1.run",
        "real/guided/steps10",
        "table_editing at mini",
        "'guided' is not made at 'steps10'",
    ),
    "unknown set in a figure": (
        PAPER,
        "figures.figure_s10.mini.edit_set",
        "unreal",
        "'unreal'",
        "edit_sets (real, many, fake)",
    ),
    "unknown edit in a claim": (
        PAPER,
        "claims.mini.claims.C11.parts.1.over",
        ["real/pnp/steps30"],
        "'steps30'",
        "settings of editing (steps10, ",
    ),
    "unknown translator": (
        CONFIG,
        f"{TRANSLATION}.translator",
        "ip2p",
        "'ip2p'",
        "translators (text_to_image, instruct_pix2pix",
    ),
    "a set of another task": (
        CONFIG,
        f"{TRANSLATION}.set",
        "edges_test",
        "translation 'ip2p_d9', its translator and its set",
        "task, not 'edit' and 'control'",
    ),
    "a teacher of another set": (
        CONFIG,
        f"{TRANSLATION}.teacher",
        "canny",
        "translation 'ip2p_d9' and its teacher",
        "not 'edits_test' and 'edges_test'",
    ),
    "a level that there is not": (
        CONFIG,
        f"{TRANSLATION}.level",
        14,
        f"{TRANSLATION}.level: 14",
        "maximum of 13",
    ),
    "a clock above the level": (
        CONFIG,
        f"{TRANSLATION}_clock2.level",
        3,
        "translation 'ip2p_d9_clock2'",
        "level 4 or more, not 3",
    ),
    "a clock without an adaptor": (
        CONFIG,
        f"{TRANSLATION}.clock",
        2,
        "translation 'ip2p_d9' needs both a clock above 1 and an adaptor",
    ),
    "an adaptor of text-to-image": (
        CONFIG,
        f"{TRANSLATION}_clock2.adaptor",
        "sd_resnet",
        "translation 'ip2p_d9_clock2': adaptor 'sd_resnet' is for text-to-image",
    ),
    "timesteps that are not the steps": (
        CONFIG,
        f"{TRANSLATION}.timesteps",
        [999, 500],
        "translation 'ip2p_d9': 2 timesteps are not 20 steps",
    ),
    "timesteps by a search of another level": (
        CONFIG,
        "mini.translations.restored_d8_searched.searched.search",
        "stablesr",
        "translation 'restored_d8_searched' and its search must have the same level",
    ),
    "timesteps by a method that does not run": (
        CONFIG,
        "mini.translations.restored_d8_searched.searched.method",
        "greedy",
        "translation 'restored_d8_searched'",
        "'greedy' of step search 'stablesr_d8' has (none)",
    ),
    "timesteps and searched ones": (
        CONFIG,
        "mini.translations.restored_d8_searched.timesteps",
        [999, 700, 400, 200, 0],
        "translation 'restored_d8_searched' has timesteps, and searched ones too",
    ),
    "unknown key of a set": (
        CONFIG,
        "mini.translation_sets.edits_test.number",
        3,
        "'number'",
        "known keys are task, source",
    ),
    "unknown set of a search": (
        CONFIG,
        "mini.depth_searches.ip2p.heldout",
        "edits_typo",
        "'edits_typo'",
        "translation_sets (edits_test, ",
    ),
    "a search on a set of another task": (
        CONFIG,
        "mini.depth_searches.ip2p.set",
        "edges_search",
        "search 'ip2p', its translator and its set",
        "task",
    ),
    "a search that holds nothing out": (
        CONFIG,
        "mini.depth_searches.ip2p.heldout",
        "edits_search",
        "search 'ip2p' holds out the set that it searches on",
    ),
    "a threshold on both sides": (
        CONFIG,
        "mini.depth_searches.stablesr.thresholds.0.at_most",
        30,
        "search 'stablesr': a threshold has either at_least or at_most",
    ),
    "unknown set of a search for time steps": (
        CONFIG,
        "mini.step_searches.ip2p.heldout",
        "edits_typo",
        "'edits_typo'",
        "translation_sets (edits_test, ",
    ),
    "a search for time steps on a set of another task": (
        CONFIG,
        "mini.step_searches.ip2p.set",
        "edges_search",
        "step search 'ip2p', its translator and its set",
        "task",
    ),
    "a search for time steps that holds nothing out": (
        CONFIG,
        "mini.step_searches.controlnet.heldout",
        "edges_steps",
        "step search 'controlnet' holds out the set that it searches on",
    ),
    "scores of a search that holds nothing out": (
        CONFIG,
        "mini.step_searches.controlnet.heldout",
        None,
        "step search 'controlnet' has no scores, since it has no heldout",
    ),
    "a method for steps that are not searched": (
        CONFIG,
        "mini.step_searches.ip2p.methods.evolution_psnr",
        [7],
        "step search 'ip2p': 7 steps of method 'evolution_psnr' are not one of 3, 5",
    ),
    "an unknown method": (
        CONFIG,
        "mini.step_searches.ip2p.methods.annealing",
        [5],
        "mini.step_searches.ip2p.methods",
        "'annealing'",
    ),
    "one step to search": (
        CONFIG,
        "mini.step_searches.ip2p.steps",
        [1, 5, 10, 15, 20],
        "mini.step_searches.ip2p.steps.0",
        "1 is less than the minimum of 2",
    ),
    "a clock without an adaptor in a search": (
        CONFIG,
        "mini.step_searches.ip2p.clock",
        2,
        "step search 'ip2p' needs both a clock above 1 and an adaptor",
    ),
    "steps of a search of another model": (
        CONFIG,
        "mini.step_searches.ip2p.also",
        ["stablesr"],
        "step search 'ip2p' and the other, 'stablesr'",
        "translator",
    ),
    "unknown search in a table of combinations": (
        COMPRESSION,
        "tables.joint.mini.models.0.combinations.1.search",
        "t2i_clock3",
        "'t2i_clock3' is not one of the step_searches",
    ),
    "combinations of two models": (
        COMPRESSION,
        "tables.joint.mini.models.0.combinations.1.search",
        "ip2p_clock2",
        "joint at mini scale: searches of 'Text-to-image'",
        "same translator, not 'text_to_image' and 'instruct_pix2pix'",
    ),
    "a combination with a reference of its own": (
        CONFIG,
        "mini.step_searches.t2i_d8.whole_reference",
        False,
        "joint at mini scale: search 't2i_d8' is not compared with the whole UNet",
    ),
    "unknown recipe of what is trained further": (
        CONFIG,
        "mini.finetuned.ip2p_d6.recipe",
        "stable-diffusion",
        "'stable-diffusion' is not one of the recipes of translators",
    ),
    "a run named as a translation": (
        CONFIG,
        "mini.translations.sd",
        {
            "translator": "instruct_pix2pix",
            "set": "edits_test",
            "seed": 0,
            "batch_size": 1,
            "steps": 1,
        },
        "'sd'",
        "a run and a translation",
    ),
    "unknown translation in a claim": (
        COMPRESSION,
        "claims.mini.claims.K2.parts.0.of",
        "ip2p_d5",
        "claim K2 at mini",
        "'ip2p_d5'",
        "translations (ip2p, ",
    ),
    "translations of other pairs in a claim": (
        COMPRESSION,
        "claims.mini.claims.K3.parts.0.of",
        "canny_d9",
        "claim K3 at mini",
        "same set",
        "'edges_test'",
    ),
    "unknown translator in a claim": (
        COMPRESSION,
        "claims.paper.claims.K1.parts.0.level.translator",
        "stable_sr",
        "claims.paper.claims.K1.parts.0.level.translator",
        "'stable_sr'",
        "translators (instruct_pix2pix, ",
    ),
    "a row that no search has in a claim": (
        COMPRESSION,
        "claims.mini.claims.K10.parts.0.multi.row",
        2,
        "claim K10 at mini",
        "row 2",
        "search 'ip2p'",
    ),
    "unknown metric in a claim": (
        COMPRESSION,
        "claims.mini.claims.K2.parts.0.metrics",
        ["clip_directions"],
        "claims.mini.claims.K2.parts.0.metrics.0",
        "'clip_directions'",
        "'clip_direction'",
    ),
    "unknown row in Table S6": (
        COMPRESSION,
        "tables.table_s6.mini.rows.0.row",
        2,
        "table_s6 at mini",
        "row 2",
    ),
    "unknown method in Table S3": (
        COMPRESSION,
        "tables.table_s3.mini.rows.0.methods",
        ["uniform", "genetic"],
        "tables.table_s3.mini.rows.0.methods.1",
        "'genetic'",
        "evolution_frechet",
    ),
    "unknown translation in a table": (
        COMPRESSION,
        "tables.comparison.mini.rows.0.run",
        "ip2p_typo",
        "comparison at mini",
        "'ip2p_typo'",
        "runs (sd, ",
    ),
    "translations of other pairs in a figure": (
        COMPRESSION,
        "figures.figure_s1.mini.set",
        "masked_test",
        "figure_s1 at mini",
        "'masked_test'",
        "'edits_test'",
    ),
    "unknown search in a figure": (
        COMPRESSION,
        "figures.depth_curves.mini.panels.0.search",
        "ip3p",
        "'ip3p'",
        "depth_searches (ip2p, ",
    ),
    "unknown step search in a figure": (
        COMPRESSION,
        "figures.step_comparison.mini.panels.0.search",
        "ip3p",
        "'ip3p'",
        "step_searches (ip2p, ",
    ),
    "steps that nobody searched for in a figure": (
        COMPRESSION,
        "figures.figure_s3.mini.groups.1.steps",
        [5, 7],
        "figure_s3 at mini",
        "7 is not one of the numbers of steps",
        "'greedy' of step search 'stablesr'",
    ),
    "unknown step search in a claim": (
        COMPRESSION,
        "claims.mini.claims.K6.parts.0.steps.than",
        "ip3p",
        "claims.mini.claims.K6.parts.0.steps.than",
        "'ip3p' is not one of the step_searches (ip2p, ",
    ),
    "scenes shown again and again": (
        CONFIG,
        "mini.datasets.reference.redrawn",
        0,
        "mini: data set 'reference': 16 seeds of scenes need redrawn",
    ),
    "a teacher that is the run itself": (
        CONFIG,
        f"{RUN}.teacher",
        "sd_clockwork",
        "run 'sd_clockwork' is its own teacher",
    ),
    "a teacher that is one's own pupil": (
        CONFIG,
        "mini.runs.sd.teacher",
        "sd_clockwork",
        "run 'sd' is its own teacher, by sd_clockwork → sd",
    ),
    "a number that is none": (
        CONFIG,
        f"{RUN}.sampler.guidance",
        float("nan"),
        f"{RUN}.sampler.guidance: nan is not a finite number",
    ),
    "more shards than files have numbers for": (
        CONFIG,
        "mini.datasets.test.shards",
        10**9,
        "mini.datasets.test.shards: 1000000000 is greater than the maximum of 1000",
    ),
    "an id with a newline": (
        CONFIG,
        "mini.models",
        {"sd\n": {"path": "x", "backbone": "sd", "tokens": 32}},
        "config.yaml: mini.models: the id 'sd\\n' does not match",
    ),
    "a scheduler with a newline": (
        CONFIG,
        f"{RUN}.sampler.scheduler",
        "ddim\n",
        f"{RUN}.sampler.scheduler: 'ddim\\n' does not match",
    ),
    "steps that are true": (
        CONFIG,
        f"{RUN}.sampler.steps",
        True,
        "True is not of type",
    ),
    "a key that is probably another": (
        CONFIG,
        f"{RUN}.sampler.step",
        6,
        "did you mean 'steps'?",
    ),
    "a model that is probably another": (
        CONFIG,
        f"{RUN}.model",
        "eficient",
        f"{RUN}.model: 'eficient'",
        "did you mean 'efficient'?",
    ),
    "adaptor steps and a clock": (
        CONFIG,
        f"{RUN}.sampler.adaptor_steps",
        [2, 3],
        "run 'sd_clockwork': give either a clock or adaptor steps",
    ),
    "unknown run of the real sizes": (
        CONFIG,
        "random.real_sizes.runs",
        ["sd_typo"],
        "'sd_typo' is not one of the runs",
    ),
    "unknown setting of the real sizes": (
        CONFIG,
        "random.real_sizes.edits",
        ["real/pnp/x"],
        "'x' is not one of the settings",
    ),
    "no random images": (
        CONFIG,
        "random.at_most.count",
        0,
        "workflow/random.yaml: at_most.count: 0 is less than the minimum of 1",
    ),
    "random weights without a file": (
        CONFIG,
        "random.weights.inception.file",
        None,
        "'inception' need a file",
    ),
    "unknown key of the random scale": (
        CONFIG,
        "random.models.sd.paht",
        "x",
        "the scale random: random.models.sd: unknown key 'paht'",
        "did you mean 'path'?",
    ),
    "unknown run in the latencies": (
        CONFIG,
        "mini.latency.runs",
        ["sd", "sd_typo"],
        "'sd_typo'",
        "runs (sd, efficient",
    ),
}


@pytest.fixture(scope="module")
def files() -> dict[str, dict]:
    """Return what the files say, by file."""
    config, papers = written()
    return {
        CONFIG: config,
        **{f"workflow/papers/{name}.yaml": paper for name, paper in papers.items()},
    }


def refused(files: dict[str, dict], file: str, keys: str, value: object) -> str:
    """Set one value, or delete it, and return what is said."""
    edited = {**files, file: copy.deepcopy(files[file])}
    *parents, last = keys.split(".")
    place = edited[file]
    for key in parents:
        place = place[int(key) if isinstance(place, list) else key]
    if value is None:
        del place[last]
    else:
        place[last] = value
    papers = {Path(name).stem: each for name, each in edited.items() if name != CONFIG}
    with pytest.raises(ValueError) as caught:
        check_all(edited[CONFIG], papers)
    line = str(caught.value)
    assert "\n" not in line
    return line


@pytest.mark.parametrize("case", CASES)
def test_wrong_value_is_named_with_what_is_allowed(case, files):
    file, keys, value, *expected = CASES[case]
    line = refused(files, file, keys, value)
    assert all(part in line for part in expected), line


@pytest.mark.parametrize("case", ["unknown model", "unknown column"])
def test_nothing_runs(case, tmp_path):
    file, keys, value, *expected = CASES[case]
    checkout = copy_checkout(tmp_path, linked=LINKED)
    edit_yaml(checkout / file, keys, value)
    done = snakemake(checkout, "--cores", "1")
    assert done.returncode == 1, done.stdout
    lines = done.stdout.splitlines()
    assert any(all(part in line for part in expected) for line in lines), done.stdout
    assert not (checkout / "results").exists()
    assert not (checkout / "logs").exists()
