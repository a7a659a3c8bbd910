"""Inputs that many of these tests read."""

import pytest
from shell import PANDA, write_lines


@pytest.fixture
def requests_file(tmp_path):
    """Two good requests."""
    return write_lines(
        tmp_path / "requests.jsonl",
        [
            {"id": "a", "query": "what is panda?", "documents": ["hi", PANDA]},
            {"id": "b", "query": "capital of France", "documents": ["Berlin", "Paris is the capital of France."]},
        ],
    )


@pytest.fixture(scope="session")
def long_file(tmp_path_factory):
    """More work than any test waits for."""
    words = "the giant panda is a bear that lives in china " * 20
    path = tmp_path_factory.mktemp("long") / "long.jsonl"
    records = (
        {"id": i, "query": f"panda {i}", "documents": [f"{i} {j} {words}" for j in range(20)]} for i in range(3000)
    )
    return write_lines(path, records)
