"""Count what the clock saves on UNets that neither paper has: SDXL's, and LCM's.

From the architecture alone, without weights.
"""

from __future__ import annotations

from pathlib import Path

from clockwork_experiments.base import provenance, storage
from clockwork_experiments.cost import other_unets
from clockwork_experiments.run import run


def count_other_unets(spec: other_unets.OtherUNetsSpec, output: Path) -> None:
    """Count on the meta device, and set the table.

    Args:
        spec: What to count.
        output: CSV to write; the table in other formats beside it.
    """
    from clockwork_experiments.report.tables.table import Column, Table

    columns = {
        "label": Column("", names=True),
        "steps": Column("steps", names=True),
        "parameters": Column("parameters, M", 2),
        "gflops_light": Column("GFLOPs a light call", 1),
        "tflops": Column("TFLOPs an image", 3),
        "saved": Column("saved, %", 1),
        "tflops_kept": Column("TFLOPs, upsampled kept", 3),
        "saved_kept": Column("saved, %, upsampled kept", 1),
        "tflops_with_attention": Column("TFLOPs with attention", 3),
        "saved_with_attention": Column("saved, %, with attention", 1),
    }
    rows = [row for each in spec.runs for row in other_unets.rows_of(each)]
    table = Table(
        spec.title,
        spec.caption,
        columns,
        rows,
        brief=other_unets.BRIEF,
        pasted=other_unets.PASTED,
    )
    for suffix, content in table.files(f"{output.parent.name}-{output.stem}").items():
        storage.write_text(output.with_suffix(suffix), content)
    versions = provenance.versions("torch", "diffusers", "deepspeed")
    storage.write_json(
        output.with_suffix(".json"), {"rows": rows, "versions": versions}
    )


if __name__ == "__main__":
    run(count_other_unets)
