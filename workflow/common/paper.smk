"""What the rules of paper.smk ask of the configuration and the registries."""

import json
import shlex
from functools import cache

from clockwork_experiments.claims import needs as claim_needs, power
from clockwork_experiments.claims.registry import ClaimsSpec
from clockwork_experiments.config import parse as spec_parser
from clockwork_experiments.config.needs.papers import Known
from clockwork_experiments.report import kinds, listing
from clockwork_experiments.report.tables import compared


def table_of(wildcards):
    """Return a table's settings at a scale."""
    table = PAPERS[wildcards.paper]["tables"][wildcards.table]
    if wildcards.scale == "paper" and measured("paper"):
        return with_scores(table)
    return table[wildcards.scale]


def numbered_tables(wildcards):
    """Return the LaTeX of the tables that the papers number, in the papers' order."""
    found = []
    for paper, name, _ in items(wildcards.scale, "tables"):
        place = listing.numbered(name)
        if place is not None and not place[-1]:
            path = f"results/{wildcards.scale}/tables/{paper}/{name}.tex"
            found.append(((list(PAPERS).index(paper), place), path))
    return [path for _, path in sorted(found)]


def measured(scale):
    """Tell whether tables of a scale wait for whatever they can show."""
    return scale in SMALL or (scale == "paper" and config["measured"])


PACKAGES = {"table": (kinds.TABLES, "results"), "figure": (kinds.FIGURES, "grid")}
"""Where kinds of tables and figures lie, and the kind of one that names none."""

UNSHOWN = ("kind", "on_request")
"""Keys of a table or figure that are the workflow's affair."""


def shown_as(wildcards):
    """Return what a job makes: ``table`` or ``figure``."""
    return "table" if "table" in wildcards.keys() else "figure"


def item_of(wildcards):
    """Return the settings of a table or figure at a scale."""
    return table_of(wildcards) if "table" in wildcards.keys() else figure_of(wildcards)


def figure_of(wildcards):
    """Return a figure's settings at a scale."""
    return PAPERS[wildcards.paper]["figures"][wildcards.figure][wildcards.scale]


def item_kind(wildcards):
    """Return what kind of table or figure it is."""
    return item_of(wildcards).get("kind", PACKAGES[shown_as(wildcards)][1])


def item_spec(wildcards):
    """Return it as its kind takes it."""
    item = item_of(wildcards)
    return json.dumps({k: v for k, v in item.items() if k not in UNSHOWN})


def item_made(wildcards):
    """Return it as an instance of its kind."""
    package, _ = PACKAGES[shown_as(wildcards)]
    return parsed(kinds.find(package, item_kind(wildcards)), item_spec(wildcards))


@cache
def parsed(kind, spec):
    """Return a JSON text as a dataclass; a job's functions ask for the same one."""
    return spec_parser.parse(kind, spec)


def item_module(wildcards):
    """Return the module of its kind."""
    package, _ = PACKAGES[shown_as(wildcards)]
    return kinds.place(package, item_kind(wildcards))[0]


def item_inputs(wildcards):
    """Return the results that it shows."""
    return item_made(wildcards).needs(Known(config, wildcards.scale))


def item_options(wildcards, input):
    """Return the command-line options for these, and for what else there is to show."""
    return shown_options(item_made(wildcards), wildcards.scale)


def compared_spec(wildcards):
    """Return the table of a run and its teacher, as its kind takes it."""
    known = Known(config, wildcards.scale)
    return json.dumps(compared.comparison(known, wildcards.scale, wildcards.run))


def compared_made(wildcards):
    """Return it as an instance of its kind."""
    return parsed(compared.ComparedSpec, compared_spec(wildcards))


def compared_inputs(wildcards):
    """Return the scores, counts and timings that it shows."""
    return compared_made(wildcards).needs(Known(config, wildcards.scale))


def compared_options(wildcards, input):
    """Return the command-line options for these."""
    return shown_options(compared_made(wildcards), wildcards.scale)


def shown_options(item, scale):
    """Return the command-line options for what a table or figure shows.

    What is measured on request alone is no input; what there is of it is shown, and an
    em dash elsewhere.
    """
    known = Known(config, scale)
    files = item.needs(known)
    for name, paths in item.wishes(known).items():
        files[name] = [path for path in paths if Path(path).is_file()]
    options, runs = named_inputs(files), item.run_settings(known)
    return f"{options} --runs {shlex.quote(json.dumps(runs))}" if runs else options


def claims_told(wildcards):
    """Return a paper's claims at a scale, as JSON text."""
    return json.dumps(PAPERS[wildcards.paper]["claims"][wildcards.scale])


def claims_spec(wildcards):
    """Return the same as what they are judged by takes them."""
    return parsed(ClaimsSpec, claims_told(wildcards))


def claims_settings(wildcards):
    """Return what judging needs to know of runs and perturbations, as JSON text."""
    known = Known(config, wildcards.scale)
    return json.dumps(claim_needs.settings(claims_spec(wildcards), known))


def claims_inputs(wildcards):
    """Return what the claims are judged by."""
    return claim_needs.needs(claims_spec(wildcards), Known(config, wildcards.scale))


def power_counts(wildcards):
    """Return how many units each claim's primary part has: of mini scale, and its own."""
    spec = claims_spec(wildcards)
    quick, study = (Known(config, scale) for scale in ("mini", wildcards.scale))
    return json.dumps(
        {
            name: [power.units(claim.parts[0], known) for known in (quick, study)]
            for name, claim in spec.claims.items()
        }
    )


def named_inputs(files):
    """Return files by name as the command-line option for them."""
    named = [f"{name}={path}" for name, paths in files.items() for path in paths]
    return f"--inputs {' '.join(map(shlex.quote, named))}" if named else ""


def claims_options(wildcards, input):
    """Return the command-line options for the same."""
    return named_inputs(claims_inputs(wildcards))


def unet_timing(wildcards):
    """Return which UNets to time, each called as Table S3 prints it."""
    return costing.unet_timing_spec(
        PAPERS["clockwork"]["tables"]["table_s3"]["paper"]["rows"]
    )
