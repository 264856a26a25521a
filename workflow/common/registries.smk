"""The papers' tables, figures and claims, checked with config.yaml."""

from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match

from clockwork_experiments.config import parse as specs
from clockwork_diffusion.clock import clock_of
from clockwork_experiments.report.tables.timesteps import GammaTableSpec, ScoreTableSpec
from clockwork_experiments.report.tables.results import COLUMNS, SOURCES

SCHEMAS = Path(workflow.basedir) / "workflow" / "schemas"
PAPERS = {
    path.stem: texts.read_yaml(path)
    for path in sorted((Path(workflow.basedir) / "workflow" / "papers").glob("*.yaml"))
}


def items(scale, kind):
    """Return the tables or figures at a scale as (paper, id, settings)."""
    return [
        (paper, name, item[scale])
        for paper, registry in PAPERS.items()
        for name, item in registry[kind].items()
        if scale in item
    ]


def with_scores(table):
    """Return a table of paper scale, with the scores that it has at mini scale."""
    own, other = table["paper"], table.get("mini", {"kind": "none"})
    if "kind" in own or "kind" in other:
        return own
    known = own["columns"]
    # Columns that there are not are refused later, by name.
    added = [name for name in other["columns"] if name in COLUMNS and name not in known]
    added = [name for name in added if SOURCES[COLUMNS[name].kind] == "scores"]
    if not added:
        return own
    ours = " Scores that are not called published: ours; in brackets 95 %."
    return {**own, "columns": known + added, "caption": own["caption"] + ours}


def check_schema(data, schema, name):
    """Refuse data that its schema does not allow, in one line that says where."""
    allowed = texts.read_yaml(SCHEMAS / schema)
    error = best_match(Draft202012Validator(allowed).iter_errors(data))
    if error is not None:
        where = ".".join(map(str, error.absolute_path)) or "top level"
        known = error.schema.get("properties")
        hint = f"; known keys are {', '.join(known)}" if known else ""
        raise WorkflowError(f"{name}: {where}: {error.message}{hint}")


def check_equal(what, one, other, *keys):
    """Refuse two entries that must agree and do not."""
    for key in keys:
        if one[key] != other[key]:
            raise WorkflowError(
                f"{what} must have the same {key}, not {one[key]!r} and {other[key]!r}"
            )


def check_grid(scale, what, figure):
    """Refuse a grid of runs that share no prompts, or of prompts that they lack."""
    runs = [entry(scale, "runs", shown["run"]) for shown in figure["runs"]]
    for run in runs:
        check_equal(f"{what}: runs", runs[0], run, "dataset")
    count = entry(scale, "datasets", runs[0]["dataset"])["count"]
    if max(figure["prompts"]) >= count:
        raise WorkflowError(
            f"{what}: prompt {max(figure['prompts'])} is not one of the {count}"
        )


def claim_registries(scale):
    """Return the papers that claim something at a scale, with what they claim."""
    return [
        (paper, registry["claims"][scale])
        for paper, registry in PAPERS.items()
        if scale in registry.get("claims", {})
    ]


def margin_runs(margin):
    """Return the runs that a margin is measured on."""
    return [margin[key] for key in ("better", "worse") if key in margin]


def part_runs(part, margins):
    """Return the runs that a part of a claim is about, those of its margin included."""
    return [
        *([part["of"]] if "of" in part else []),
        *part.get("over", ()),
        *([part["to"]] if "to" in part else []),
        *margin_runs(margins[part["margin"]]),
    ]


def check_claims(scale, paper, registry):
    """Refuse claims on runs that there are not, or that share no prompts and seeds."""
    known, margins = entries(scale, "runs"), registry["margins"]
    for name, claim in registry["claims"].items():
        what = f"{paper}, claim {name} at {scale} scale"
        for part in claim["parts"]:
            if part["margin"] not in margins:
                listed = ", ".join(margins)
                raise WorkflowError(
                    f"{what}: {part['margin']!r} is not one of the margins ({listed})"
                )
            runs = part_runs(part, margins)
            edited = [run for run in runs if is_edited(run)]
            for run in edited:
                check_edited_run(scale, what, run)
            if edited:
                continue
            check_level_part(scale, what, part)
            if "steps" in part:
                check_step_answer(scale, what, part["steps"])
            if any(run in entries(scale, "translations") for run in runs):
                check_translated(scale, what, runs)
                continue
            missing = [run for run in dict.fromkeys(runs) if run not in known]
            if missing:
                listed = ", ".join(known)
                raise WorkflowError(
                    f"{what}: run {missing[0]!r} is not one of the runs ({listed})"
                )
            for run in runs:
                check_equal(
                    f"{what}: runs", known[runs[0]], known[run], "dataset", "seed"
                )
            timed = entries(scale, "latency").get("runs", ())
            for run in runs if "latency" in part["metrics"] else ():
                if run not in timed:
                    listed = ", ".join(timed) or "none"
                    raise WorkflowError(
                        f"{what}: run {run!r} is not one of those timed ({listed})"
                    )
            if "perturbation" in part:
                check_cells(scale, what, part)


def check_translated(scale, what, runs):
    """Refuse comparisons of translations that share no pairs and seeds."""
    known = entries(scale, "translations")
    for run in runs:
        if run not in known:
            listed = ", ".join(known)
            raise WorkflowError(
                f"{what}: {run!r} is not one of the translations ({listed})"
            )
        check_equal(f"{what}: translations", known[runs[0]], known[run], "set", "seed")


def check_level_part(scale, what, part):
    """Refuse levels of models, and answers of searches, that there are not."""
    if "level" in part:
        translator = part["level"]["translator"]
        known = entries(scale, "translators")
        if translator not in known:
            listed = ", ".join(known) or "none"
            raise WorkflowError(
                f"{what}: {translator!r} is not one of the translators ({listed})"
            )
    if "multi" in part:
        asked = part["multi"]
        known = entries(scale, "depth_searches")
        if asked["search"] not in known:
            listed = ", ".join(known) or "none"
            raise WorkflowError(
                f"{what}: {asked['search']!r} is not one of the searches ({listed})"
            )
        rows = known[asked["search"]].get("multi", {}).get("rows", ())
        if asked["row"] not in rows:
            listed = ", ".join(map(str, rows)) or "none"
            raise WorkflowError(
                f"{what}: row {asked['row']} is not one of those that search "
                f"{asked['search']!r} has ({listed})"
            )


STEP_FIGURES = ("step_plane", "step_ticks", "step_curves", "search_progress")
"""Kinds of figures of time steps."""


def figure_answers(figure):
    """Return what a figure of time steps shows of searches."""
    shown = [figure, *figure.get("groups", ()), *figure.get("panels", ())]
    return [each for each in shown if "search" in each]


def step_searched(answers):
    """Return the searches that answers are of, or are compared with."""
    named = [each[key] for each in answers for key in ("search", "than") if key in each]
    return list(dict.fromkeys(named))


def check_step_answer(scale, what, asked):
    """Refuse searches for time steps that there are not, and what they do not run.

    Even steps come with every number of steps of a search.
    """
    known = entries(scale, "step_searches")
    for name in step_searched([asked]):
        if name not in known:
            listed = ", ".join(known) or "none"
            raise WorkflowError(
                f"{what}: {name!r} is not one of the step searches ({listed})"
            )
        runs = {"uniform": known[name]["steps"], **known[name]["methods"]}
        wanted = asked["steps"]
        for method in (asked[key] for key in ("method", "over") if key in asked):
            for steps in wanted if isinstance(wanted, list) else [wanted]:
                if steps not in runs.get(method, ()):
                    listed = ", ".join(map(str, runs.get(method, ()))) or "none"
                    raise WorkflowError(
                        f"{what}: {steps} is not one of the numbers of steps that "
                        f"{method!r} of step search {name!r} has ({listed})"
                    )


def check_step_figure(scale, what, figure):
    """Refuse figures of searches for time steps that there are not."""
    for shown in figure_answers(figure):
        if "steps" in shown and "method" in shown:
            check_step_answer(scale, what, shown)
        else:
            entry(scale, "step_searches", shown["search"])
        if figure["kind"] in ("step_plane", "step_curves"):
            name = shown["search"]
            check_judged(what, name, entry(scale, "step_searches", name))


def joint_searches(scale, item):
    """Return the searches of a table or figure of combinations, id to settings."""
    names = [
        combination["search"]
        for model in item["models"]
        for combination in model["combinations"]
    ]
    return {name: entry(scale, "step_searches", name) for name in names}


def check_joint(scale, what, item):
    """Refuse combinations that are not compared with the same images."""
    alike = {"guidance": 1.0, "image_guidance": 1.0, "scheduler": "ddim"}
    keys = ("translator", "set", "heldout", "seed", "reference", *alike)
    for model in item["models"]:
        searches = joint_searches(scale, {"models": [model]})
        for name, search in searches.items():
            check_judged(what, name, search)
        first = {**alike, **next(iter(searches.values()))}
        for name, search in searches.items():
            shared = f"{what}: searches of {model['label']!r}, {name!r} among them,"
            check_equal(shared, first, {**alike, **search}, *keys)
            if "level" in search and not search.get("whole_reference"):
                raise WorkflowError(
                    f"{what}: search {name!r} is not compared with the whole UNet"
                )


def check_translation_grid(scale, what, figure):
    """Refuse a grid of translations of other pairs than it shows."""
    pairs = {"set": figure["set"]}
    entry(scale, "translation_sets", figure["set"])
    for shown in figure["translations"]:
        chosen = entry(scale, "translations", shown["translation"])
        check_equal(f"{what}: its pairs and those of", pairs, chosen, "set")


def check_cells(scale, what, part):
    """Refuse cells that a perturbation's grid does not have."""
    grid = entry(scale, "perturbations", part["perturbation"])["spec"]
    asked = [("alphas", part.get("alpha", 0))]
    for cell in part["cells"]:
        asked += [("layers", cell["layer"]), ("starts", cell["start"])]
    for key, value in asked:
        if value not in grid[key]:
            listed = ", ".join(map(str, grid[key]))
            raise WorkflowError(
                f"{what}: {value!r} is not one of the {key} of perturbation "
                f"{part['perturbation']!r} ({listed})"
            )


def curve_runs(figure):
    """Return the runs of a figure with curves."""
    points = [point for series in figure["series"] for point in series["points"]]
    return list(dict.fromkeys(point["run"] for point in points))


def panel_sets(figure):
    """Return the editing sets whose scores a figure with curves shows."""
    scores = [panel["score"] for panel in figure["panels"]]
    return list(dict.fromkeys(score.partition("/")[0] for score in scores))


def figure_edits(figure):
    """Return the edited runs of a figure of one set, ``<edit>/<setting>``."""
    if figure["kind"] == "edit_timings":
        return [
            f"{shown['edit']}/{column['setting']}"
            for shown in figure["edits"]
            for column in figure["settings"]
        ]
    return [shown["run"] for shown in figure["edits"]]


def check_editing(scale):
    """Refuse inversions and edits of models, adaptors and settings that there are not."""
    for name, chosen in entries(scale, "edit_sets").items():
        if "model" in chosen:
            entry(scale, "models", chosen["model"])
        if chosen["source"] == "scenes" and ("model" in chosen) != chosen.get(
            "sampled", False
        ):
            raise WorkflowError(
                f"{scale}: edit set {name!r}: sampled scenes and a model need each other"
            )
    if UNEDITED in editing(scale, "edits"):
        raise WorkflowError(
            f"{scale}: the edit {UNEDITED!r} is always scored; rename it"
        )
    loops = [("inversion", *item) for item in editing(scale, "inversions").items()]
    for name, chosen in editing(scale, "edits").items():
        inversion = editing_entry(scale, "inversions", chosen["inversion"])
        loops.append(("edit", name, {"model": inversion["model"], **chosen}))
        for setting in chosen.get("settings", ()):
            editing_entry(scale, "settings", setting)
        if "teacher" in chosen:
            editing_entry(scale, "edits", chosen["teacher"])
    for kind, name, chosen in loops:
        what = f"{scale}: {kind} {name!r}"
        entry(scale, "models", chosen["model"])
        if (chosen.get("clock", 1) > 1) != ("adaptor" in chosen):
            raise WorkflowError(
                f"{what} needs both a clock above 1 and an adaptor, or neither"
            )
        if "adaptor" in chosen:
            adaptor = entry(scale, "adaptors", chosen["adaptor"])
            if adaptor.get("kind") == "branch":
                raise WorkflowError(f"{what}: a branch is no adaptor for editing")
            if "model" in adaptor:
                check_equal(f"{what} and its adaptor", chosen, adaptor, "model")
    for setting in entries(scale, "editing").get("together", ()):
        editing_entry(scale, "settings", setting)
    for chosen in entries(scale, "edit_sets").values():
        for name in chosen.get("edits", ()):
            editing_entry(scale, "edits", name)
    for name in editing(scale, "latency").get("runs", ()):
        check_edited_run(scale, f"{scale}: timed edits", name)


LEVEL_TABLES = ("levels", "level_costs")
"""Kinds of tables of depth-skip's levels."""


STEP_TABLES = {"step_gammas": GammaTableSpec, "step_scores": ScoreTableSpec}
"""Kinds of tables of time-step optimisation."""


def step_table(table):
    """Return such a table as its dataclass."""
    spec = {key: value for key, value in table.items() if key != "kind"}
    return specs.parse(STEP_TABLES[table["kind"]], spec)


def step_table_searches(scale, table):
    """Return the searches of time steps that a table shows.

    A scale that has none sets its tables with what is published alone.
    """
    known = entries(scale, "step_searches")
    return list(step_table(table).searches) if known else []


def check_step_table(scale, what, table):
    """Refuse a table of time steps that is ill-formed, or of searches there are not."""
    try:
        step_table(table)
    except ValueError as error:
        raise WorkflowError(f"{what}: {error}") from None
    for name in step_table_searches(scale, table):
        search = entry(scale, "step_searches", name)
        if table["kind"] == "step_scores":
            check_judged(what, name, search)


def check_judged(what, name, search):
    """Refuse scores of a search that holds no pairs out."""
    if search.get("heldout") is None:
        raise WorkflowError(
            f"{what}: step search {name!r} has no scores, since it has no heldout"
        )


def level_translators(table):
    """Return the models that a table or a figure of levels is about."""
    named = [table] if "translator" in table else table["rows"]
    return list(dict.fromkeys(each["translator"] for each in named))


def check_level(scale, name, run, kind="run"):
    """Refuse a run whose level does not go with its clock."""
    if "level" not in run or "adaptor" not in run:
        return
    adaptor = entry(scale, "adaptors", run["adaptor"])
    what = f"{scale}: {kind} {name!r}"
    if adaptor.get("kind") == "branch":
        raise WorkflowError(f"{what}: a branch needs the whole UNet, and not a level")
    needed = {"stage1": 4, "stage2": 7}[adaptor.get("spec", adaptor)["cut"]]
    if run["level"] < needed:
        raise WorkflowError(
            f"{what}: its adaptor's cut needs level {needed} or more, "
            f"not {run['level']}"
        )


def check_registries():
    """Refuse a reference to what does not exist, before anything runs."""
    config.pop("random", None)
    check_schema(config, "config.schema.yaml", "config.yaml")
    for paper, registry in PAPERS.items():
        check_schema(registry, "paper.schema.yaml", f"workflow/papers/{paper}.yaml")
    add_random_scale()
    check_schema(config, "config.schema.yaml", "the scale random")
    for scale in SCALES:
        for other, what in (("datasets", "data set"), ("translations", "translation")):
            shared = set(entries(scale, "runs")) & set(entries(scale, other))
            if shared:
                raise WorkflowError(f"{scale}: {shared} names a run and a {what}")
        for name, run in entries(scale, "runs").items():
            entry(scale, "models", run["model"])
            entry(scale, "datasets", run["dataset"])
            if "adaptor" in run:
                adaptor = entry(scale, "adaptors", run["adaptor"])
                if "model" in adaptor:
                    what = f"{scale}: run {name!r} and its adaptor"
                    check_equal(what, run, adaptor, "model")
            if "teacher" in run:
                teacher = entry(scale, "runs", run["teacher"])
                what = f"{scale}: run {name!r} and its teacher"
                check_equal(what, run, teacher, "dataset", "seed")
            if clock_of(run["sampler"]).needs_adaptor != ("adaptor" in run):
                raise WorkflowError(
                    f"{scale}: run {name!r} needs both a clock above 1 and an adaptor, "
                    "or neither; adaptor steps, or every step, are a clock as well"
                )
            check_level(scale, name, run)
        for translator in entries(scale, "translators").values():
            if "model" in translator:
                entry(scale, "models", translator["model"])
            if "over" in translator:
                base = entry(scale, "translators", translator["over"])
                what = f"{scale}: a translator and {translator['over']!r} beneath it"
                check_equal(what, translator, base, "task")
                if "over" in base:
                    raise WorkflowError(f"{what}, which lies over another itself")
        for name, dataset in entries(scale, "datasets").items():
            reference = entry(scale, "datasets", dataset.get("reference", name))
            what = f"{scale}: data set {name!r} and its reference"
            check_equal(what, {"size": 0, **dataset}, {"size": 0, **reference}, "size")
        for trajectory in entries(scale, "trajectories").values():
            entry(scale, "models", trajectory["model"])
            entry(scale, "datasets", trajectory["dataset"])
        for name, adaptor in entries(scale, "adaptors").items():
            if "model" not in adaptor:
                continue
            entry(scale, "models", adaptor["model"])
            for key in ("train", "heldout"):
                trajectory = entry(scale, "trajectories", adaptor[key])
                what = f"{scale}: adaptor {name!r} and trajectory {adaptor[key]!r}"
                check_equal(what, adaptor, trajectory, "model")
                check_equal(what, adaptor["spec"], trajectory["spec"], "cut")
        check_editing(scale)
        check_translations(scale)
        check_depth_searches(scale)
        check_step_searches(scale)
        check_finetuned(scale)
        for paper, name, table in items(scale, "tables"):
            if table.get("kind") in LEVEL_TABLES:
                for translator in level_translators(table):
                    entry(scale, "translators", translator)
                continue
            if table.get("kind") == "multi_depth":
                what = f"{paper}, {name} at {scale} scale"
                for row in table["rows"] if "search" in table else ():
                    asked = {"search": table["search"], **row}
                    check_level_part(scale, what, {"multi": asked})
                continue
            if table.get("kind") == "joint":
                check_joint(scale, f"{paper}, {name} at {scale} scale", table)
                continue
            if table.get("kind") in STEP_TABLES:
                check_step_table(scale, f"{paper}, {name} at {scale} scale", table)
                continue
            if table.get("kind") == "settings":
                check_edited_run(
                    scale, f"{paper}, {name} at {scale} scale", table["run"]
                )
                continue
            for column in table["columns"]:
                if column not in COLUMNS:
                    raise WorkflowError(
                        f"{paper}, {name} at {scale} scale: column {column!r} is not "
                        f"one of {', '.join(COLUMNS)}"
                    )
            for row in table["rows"]:
                for key in ("run", "baseline"):
                    if is_edited(row.get(key, "")):
                        what = f"{paper}, {name} at {scale} scale"
                        check_edited_run(scale, what, row[key])
                        continue
                    known = {
                        **entries(scale, "runs"),
                        **entries(scale, "translations"),
                    }
                    if key in row and row[key] not in known:
                        listed = ", ".join(known)
                        raise WorkflowError(
                            f"{paper}, {name} at {scale} scale: {key} {row[key]!r} is "
                            f"not one of the runs ({listed})"
                        )
        for paper, name, figure in items(scale, "figures"):
            what = f"{paper}, {name} at {scale} scale"
            for key in ("model", "adaptor", "perturbation", "translator"):
                if key in figure:
                    entry(scale, f"{key}s", figure[key])
            for shown in figure.get("adaptors", ()):
                if "model" not in entry(scale, "adaptors", shown["adaptor"]):
                    raise WorkflowError(
                        f"{what}: adaptor {shown['adaptor']!r} is not trained"
                    )
            for run in curve_runs(figure) if "series" in figure else ():
                if is_edited(run):
                    for edit_set in panel_sets(figure):
                        check_edited_run(scale, what, f"{edit_set}/{run}")
                else:
                    entry(scale, "runs", run)
            if "translations" in figure:
                check_translation_grid(scale, what, figure)
            if figure.get("kind") == "depth_curves":
                for panel in figure["panels"]:
                    entry(scale, "depth_searches", panel["search"])
            if figure.get("kind") in STEP_FIGURES:
                check_step_figure(scale, what, figure)
            if figure.get("kind") == "joint_pareto":
                check_joint(scale, what, figure)
            if "edit_set" in figure:
                for run in figure_edits(figure):
                    check_edited_run(scale, what, f"{figure['edit_set']}/{run}")
            if "runs" in figure:
                check_grid(scale, what, figure)
        for perturbation in entries(scale, "perturbations").values():
            entry(scale, "models", perturbation["model"])
            entry(scale, "datasets", perturbation["dataset"])
        for name in entries(scale, "latency").get("runs", ()):
            entry(scale, "runs", name)
        for judged in entries(scale, "quality").values():
            entry(scale, "runs", judged["run"])
        for backbone in entries(scale, "backbones").values():
            entry(scale, "datasets", backbone["dataset"])
            if backbone["teacher"] not in entries(scale, "backbones"):
                entry(scale, "models", backbone["teacher"])
        for paper, registry in claim_registries(scale):
            check_claims(scale, paper, registry)
    check_sources()


check_registries()


def ids(section, of=entries):
    """Return a wildcard constraint: the ids of a section at any scale."""
    names = {name for scale in SCALES for name in of(scale, section)}
    return "|".join(sorted(names)) or "none"


def paper_ids(kind):
    """Return a wildcard constraint: the ids of tables or figures."""
    return "|".join(
        sorted({name for registry in PAPERS.values() for name in registry[kind]})
    )


wildcard_constraints:
    scale="|".join(SCALES),
    model=ids("models"),
    dataset=ids("datasets"),
    trajectory=ids("trajectories"),
    adaptor=ids("adaptors"),
    run=ids("runs"),
    judged=ids("quality"),
    backbone=ids("backbones"),
    perturbation=ids("perturbations"),
    translator=ids("translators"),
    search=ids("depth_searches"),
    step_search=ids("step_searches"),
    finetuned=ids("finetuned"),
    source=ids("sources"),
    coco=ids("coco"),
    edit_set=ids("edit_sets"),
    inversion=ids("inversions", editing),
    edit=ids("edits", editing),
    setting=ids("settings", editing),
    images="|".join((ids("runs"), ids("datasets"))),
    paper="|".join(PAPERS),
    table=paper_ids("tables"),
    figure=paper_ids("figures"),
    shard=r"\d{3}",


def tables(scale):
    """Return the files of every table at a scale."""
    return [
        f"results/{scale}/tables/{paper}/{name}.{kind}"
        for paper, name, _ in items(scale, "tables")
        for kind in ("csv", "md", "tex")
    ]


def figures(scale):
    """Return the files of every figure at a scale that is not made on request alone."""
    return figure_files(scale, lambda figure: not figure.get("on_request"))


def on_request(scale):
    """Return the files of the figures at a scale that are made on request alone."""
    return figure_files(scale, lambda figure: figure.get("on_request"))


def figure_files(scale, wanted):
    """Return the files of the figures at a scale that are wanted."""
    return [
        f"results/{scale}/figures/{paper}/{name}.{kind}"
        for paper, name, figure in items(scale, "figures")
        for kind in ("pdf", "png")
        if wanted(figure)
    ]


def claims(scale):
    """Return the files of every paper's claims at a scale."""
    return [
        f"results/{scale}/claims/{paper}.{kind}"
        for paper, _ in claim_registries(scale)
        for kind in ("json", "md")
    ]


def drawn_figures(scale):
    """Return the files of every figure at a scale that needs no weights."""
    free = {"method", "block_map", "adaptor_map", "pnp_caching", "level_map"}

    def drawn(figure):
        published = figure.get("kind") == "step_ticks" and not figure_answers(figure)
        return published or figure.get("kind") in free

    return figure_files(scale, drawn)
