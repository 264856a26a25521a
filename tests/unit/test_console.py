import logging
from types import SimpleNamespace

from clockwork_experiments.base.console import Progress


def tell(progress, event, **told):
    record = logging.makeLogRecord({"event": SimpleNamespace(value=event), **told})
    progress.emit(record)


def test_a_run_says_what_it_makes_how_much_is_left_and_where_it_logs():
    said, now = [], [0.0]
    progress = Progress(said.append, lambda: now[0])
    tell(progress, "run_info", stats={"total": 9})
    job = {"rule_name": "sample_images", "wildcards": {"run": "sd", "shard": "000"}}
    tell(progress, "job_info", jobid=1, log=["logs/sd.log"], **job)
    now[0] = 360.0
    tell(progress, "progress", done=3, total=9)
    tell(progress, "job_info", jobid=2, log=[], rule_name="all", wildcards=None)
    assert said == [
        "sample_images sd 000: 9 of 9 jobs left; log: logs/sd.log",
        "all: 6 of 9 jobs left, about 12 min",
    ]
    assert progress.ending() == ""


def test_results_are_named_as_they_come():
    said = []
    progress = Progress(said.append)
    table = [f"results/mini/tables/table_1.{kind}" for kind in ("csv", "md")]
    for jobid, rule in enumerate(("set_table", "score_images")):
        tell(progress, "job_info", jobid=jobid, rule_name=rule, output=table)
    said.clear()
    tell(progress, "job_finished", job_id=0)
    tell(progress, "job_finished", job_id=1)
    assert said == ["made: results/mini/tables/table_1.md"]


def test_the_log_of_what_failed_is_named():
    progress = Progress(lambda line: None)
    job = {"rule_name": "set_table", "wildcards": {"table": "table_1"}}
    tell(progress, "job_info", jobid=4, log=["logs/t.log"], **job)
    tell(progress, "job_error", jobid=4)
    assert progress.ending() == "failed: set_table table_1; its log: logs/t.log"
