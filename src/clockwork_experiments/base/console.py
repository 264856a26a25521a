"""What a run says while it runs: which job, how many are left, until when, its log."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from typing import Any

RESULTS = ("set_table", "draw_figure", "judge_claims")
"""Rules whose files people wait for."""


class Progress(logging.Handler):
    """Says for each job that starts what it is and where it logs, and each result made.

    Snakemake tells its loggers when a job starts, ends or fails.
    """

    def __init__(
        self, say: Callable[[str], None], clock: Callable[[], float] = time.monotonic
    ) -> None:
        """Say lines by ``say``; ``clock`` returns seconds."""
        super().__init__()
        self.say, self.clock = say, clock
        self.began = clock()
        self.done, self.total = 0, 0
        self.logs: dict[int, tuple[str, str]] = {}
        self.results: dict[int, str] = {}
        self.failed: list[int] = []

    def emit(self, record: logging.LogRecord) -> None:
        """Note what Snakemake tells, and say what there is to say."""
        event = getattr(getattr(record, "event", None), "value", "")
        told: dict[str, Any] = vars(record)
        if event == "run_info":
            self.total = int(told.get("stats", {}).get("total", 0))
        elif event == "progress":
            self.done, self.total = int(told["done"]), int(told["total"])
        elif event == "job_info":
            names = [
                told.get("rule_name", ""),
                *dict(told.get("wildcards") or {}).values(),
            ]
            logs = [str(each) for each in told.get("log") or ()]
            self.logs[told["jobid"]] = (" ".join(map(str, names)), " ".join(logs))
            made = [str(each) for each in told.get("output") or ()]
            if told.get("rule_name") in RESULTS and made:
                # Of several formats the one that is read as it lies.
                read = [each for each in made if each.endswith((".md", ".png"))]
                self.results[told["jobid"]] = [*read, *made][0]
            left = (
                f"{self.total - self.done} of {self.total} jobs left{self.remaining()}"
            )
            where = f"; log: {' '.join(logs)}" if logs else ""
            self.say(f"{' '.join(map(str, names))}: {left}{where}")
        elif event == "job_finished" and told["job_id"] in self.results:
            self.say(f"made: {self.results.pop(told['job_id'])}")
        elif event == "job_error":
            self.failed.append(told["jobid"])

    def remaining(self) -> str:
        """Return about how long the rest takes, once a few jobs are done."""
        if self.done < 3:
            return ""
        seconds = (self.clock() - self.began) / self.done * (self.total - self.done)
        minutes = max(round(seconds / 60), 1)
        return (
            f", about {minutes} min"
            if minutes < 120
            else f", about {minutes / 60:.0f} h"
        )

    def ending(self) -> str:
        """Return which job failed last, and its log; nothing if none did."""
        if not self.failed:
            return ""
        name, log = self.logs.get(self.failed[-1], ("a job", ""))
        return f"failed: {name}" + (f"; its log: {log}" if log else "")
