"""What the tables and figures of benchmark.smk are of."""

from clockwork_experiments.report.figures import benchmark as benchmark_figures
from clockwork_experiments.report.tables import benchmark as benchmark_tables

BENCHMARK_TABLES = {
    "methods": benchmark_tables.BenchmarkSpec,
    "slice": benchmark_tables.BenchmarkSpec,
    "plans": benchmark_tables.PlansSpec,
    "masks": benchmark_tables.MasksSpec,
}
BENCHMARK_FIGURES = {
    "methods": benchmark_figures.BenchmarkParetoSpec,
    "masks": benchmark_figures.BenchmarkMasksSpec,
}


def benchmark_item(shown, wildcards):
    """Return a table or figure of the benchmark as its kind has it."""
    return parsed(shown[wildcards.shown], benchmarking.item_spec(wildcards))


def benchmark_inputs(wildcards):
    """Return the measurements that a table shows."""
    item = benchmark_item(BENCHMARK_TABLES, wildcards)
    return item.needs(Known(config, wildcards.scale))


def benchmark_options(wildcards, input):
    """Return the command-line options for these."""
    item = benchmark_item(BENCHMARK_TABLES, wildcards)
    return shown_options(item, wildcards.scale)


def benchmark_kind(wildcards):
    """Return the kind of a table."""
    return BENCHMARK_TABLES[wildcards.shown].kind


def benchmark_module(wildcards):
    """Return its module."""
    return BENCHMARK_TABLES[wildcards.shown].__module__


def benchmark_figure_inputs(wildcards):
    """Return the measurements that a figure shows."""
    item = benchmark_item(BENCHMARK_FIGURES, wildcards)
    return item.needs(Known(config, wildcards.scale))


def benchmark_figure_options(wildcards, input):
    """Return the command-line options for these."""
    item = benchmark_item(BENCHMARK_FIGURES, wildcards)
    return shown_options(item, wildcards.scale)


def benchmark_figure_kind(wildcards):
    """Return the kind of a figure."""
    return BENCHMARK_FIGURES[wildcards.shown].kind


def benchmark_figure_module(wildcards):
    """Return its module."""
    return BENCHMARK_FIGURES[wildcards.shown].__module__
