"""A wrong value ends before anything runs, in a line that says what is allowed."""

import pytest
from checkout import copy_checkout, edit_yaml, snakemake

LINKED = ("profiles", "resources/mini", "src")
CONFIG, PAPER = "config.yaml", "workflow/papers/clockwork.yaml"
RUN = "mini.runs.sd_clockwork"
EDIT = "mini.editing.edits.pnp_clock2"
TRANSLATION = "mini.translations.ip2p_d9"
TABLE = "tables.table_1.mini"
CASES = {
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
        "'dpmpp', 'dpm', 'pndm', 'ddim', 'heun'",
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
        "runs (sd, sd_clockwork",
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
        "runs (sd, sd_clockwork",
    ),
    "unknown prompt in a figure": (
        PAPER,
        "figures.figure_1.mini.prompts",
        [0, 64],
        "figure_1 at mini",
        "prompt 64",
        "of the 64",
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
        "translation 'ip2p_d9': its translator and set",
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
        "mini.depth_searches.stablesr.thresholds.0",
    ),
    "unknown recipe of what is trained further": (
        CONFIG,
        "mini.finetuned.ip2p_d6.recipe",
        "stable-diffusion",
        "'stable-diffusion' is not one of the recipes of translators",
    ),
    "unknown run in the latencies": (
        CONFIG,
        "mini.latency.runs",
        ["sd", "sd_typo"],
        "'sd_typo'",
        "runs (sd, sd_clockwork",
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_wrong_value_is_named_with_what_is_allowed(case, tmp_path):
    file, keys, value, *expected = CASES[case]
    checkout = copy_checkout(tmp_path, linked=LINKED)
    edit_yaml(checkout / file, keys, value)
    done = snakemake(checkout, "--cores", "1")
    assert done.returncode == 1, done.stdout
    lines = done.stdout.splitlines()
    assert any(all(part in line for part in expected) for line in lines), done.stdout
    assert not (checkout / "results").exists()
    assert not (checkout / "logs").exists()
