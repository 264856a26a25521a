"""List what the benchmark measured of each image, one value a line."""

from __future__ import annotations

import csv
import io
from pathlib import Path

from clockwork_experiments.base import storage
from clockwork_experiments.run import run


def list_measures(measured: list[Path], output: Path) -> None:
    """Write method, caption, seed, metric and value of every image.

    Args:
        measured: Measurements, as `measure_method` writes them.
        output: CSV to write.
    """
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(["method", "caption", "seed", "metric", "value"])
    for path in measured:
        found = storage.read_json(path)
        for metric, values in found["values"].items():
            captions = len(values) // found["seeds"]
            for index, value in enumerate(values):
                seed, caption = divmod(index, captions)
                writer.writerow([path.stem, caption, seed, metric, value])
    storage.write_text(output, text.getvalue())


if __name__ == "__main__":
    run(list_measures)
