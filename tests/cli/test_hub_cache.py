"""A model of the Hub that lies in the local cache, with no hub to be reached."""

import json
import shutil

import pytest
from shell import TINY, rerank

pytestmark = pytest.mark.slow

COMMIT = "0123456789abcdef0123456789abcdef01234567"


@pytest.fixture
def cache(tmp_path):
    """The cache as huggingface_hub lays it out, with `somebody/tiny` in it."""
    model = tmp_path / "hub" / "models--somebody--tiny"
    shutil.copytree(TINY, model / "snapshots" / COMMIT)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(COMMIT)
    return {"HF_HUB_CACHE": str(tmp_path / "hub")}


def test_it_is_used_and_its_commit_is_its_revision(cache, requests_file, tmp_path):
    summary = tmp_path / "summary.json"
    ended = rerank("run", requests_file, "-m", "somebody/tiny", "-q", "--summary", summary, env=cache)
    assert (ended.code, ended.err) == (0, "")
    assert {record["model"] for record in ended.records} == {"somebody/tiny"}
    assert json.loads(summary.read_text())["model"]["revision"] == COMMIT


def test_one_that_is_not_there_is_one_line_that_says_what_to_do(cache, requests_file):
    ended = rerank("run", requests_file, "-m", "somebody/else", "-q", env=cache)
    assert ended.code == 5
    assert "the Hub cannot be reached and the model is not on disk. Fix: " in ended.err
    assert ended.err.count("\n") == 1
