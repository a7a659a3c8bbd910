"""A few kills of a few jobs, as `make faults` does by the hundred: nothing is lost, doubled, changed or left behind."""

import pytest
from kill_jobs import JOBS
from kills import Plan, campaign

pytestmark = pytest.mark.slow

SAMPLE = ("jsonl", "jsonl to parquet", "bad ones skipped")


def test_killed_runs_lose_double_and_change_nothing(tmp_path):
    jobs = tuple(job for job in JOBS if job.name in SAMPLE)
    report = campaign(Plan(kills=4, workers=2, seed=1, jobs=jobs, records=250), tmp_path)
    figures = report.figures
    assert report.broken == [], report.table()
    assert (figures["kills"], figures["survived"], figures["lost"], figures["doubled"]) == (4, 4, 0, 0)
    assert figures["resumes"] > 0, "no kill came after a commit"
