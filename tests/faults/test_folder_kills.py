"""A few kills of equal commands with one output folder; `folder_kills.py` does it with 200 files and four processes."""

import pytest
from folder_kills import Campaign

pytestmark = pytest.mark.slow


def test_killed_workers_of_a_folder_leave_it_right(tmp_path):
    found = Campaign(files=10, processes=2, kills=2, seed=3, records=60).run(tmp_path)
    assert (found["kills"], found["wrong"], found["left_behind"], found["complete"]) == (2, [], [], True)
    assert set(found["exit_codes"]) == {0}
    assert found["scored"] >= found["pairs"]
    assert found["twice"] < 0.25  # of so few pairs the last chunks of two kills are a large part
