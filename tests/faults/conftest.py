import pytest
from real_runs import command, ended, requests


@pytest.fixture(scope="session")
def given(tmp_path_factory):
    """Requests that take a second or two."""
    return requests(tmp_path_factory.mktemp("given") / "in.jsonl")


@pytest.fixture(scope="session")
def whole(given, tmp_path_factory):
    """What a run writes that nobody disturbs, by the suffix of its output."""
    folder, known = tmp_path_factory.mktemp("whole"), {}

    def whole(suffix):
        if suffix not in known:
            output = folder / f"out{suffix}"
            assert ended(command(given, output)) == (0, "")
            known[suffix] = output.read_bytes()
        return known[suffix]

    return whole
