"""Flags > RERANK_* environment > --config FILE > defaults, and where each value came from."""

import tomllib

import pytest
from shell import TINY, is_one_line, rerank


def settings(*args, env=None):
    """What --print-config says: value and origin by name. It is TOML, too."""
    ended = rerank("run", "--print-config", *args, env=env)
    assert (ended.code, ended.err) == (0, "")
    values = tomllib.loads(ended.out.decode())
    origins = {line.partition(" = ")[0]: line.rpartition("# ")[2] for line in ended.out.decode().splitlines()}
    return {name: (value, origins[name]) for name, value in values.items()}


@pytest.fixture
def config(tmp_path):
    path = tmp_path / "rerank.toml"
    path.write_text('model = "from/file"\ntop-n = 3\nmax-length = 64\n[run]\nscores = "raw"\n[check]\njson = true\n')
    return path


def test_a_flag_wins_over_the_environment_and_that_over_the_file(config):
    env = {"RERANK_TOP_N": "4", "RERANK_MAX_LENGTH": "65"}
    found = settings("--config", config, "--max-length", "66", env=env)
    assert found["max-length"] == (66, "flag")
    assert found["top-n"] == (4, "environment")
    assert found["model"] == ("from/file", "config file")
    assert found["scores"] == ("raw", "config file")
    assert found["format"] == ("api", "default")


def test_the_order_of_flags_does_not_matter_to_the_file(config):
    assert settings("--top-n", "9", "--config", config)["top-n"] == (9, "flag")


def test_a_model_from_the_environment_is_used(requests_file):
    ended = rerank("run", requests_file, "-q", env={"RERANK_MODEL": "/no/such/model"})
    assert ended.code == 5
    assert "/no/such/model" in ended.err


def test_settings_of_a_file_are_used(requests_file, tmp_path):
    path = tmp_path / "rerank.toml"
    path.write_text(f'model = "{TINY}"\ntop-n = 1\ndocuments = false\nquiet = true\n')
    ended = rerank("run", requests_file, "--config", path)
    assert (ended.code, ended.err) == (0, "")
    assert [len(answer["results"]) for answer in ended.records] == [1, 1]
    assert "document" not in ended.records[0]["results"][0]


@pytest.mark.parametrize(
    "content",
    ["topp-n = 3\n", "[run]\ntopp = 3\n", "[rnu]\ntop-n = 3\n", "top-n = \n", 'top-n = "many"\n', 'run = "x"\n'],
    ids=["unknown key", "unknown key of a command", "unknown table", "no TOML", "wrong type", "a table as a value"],
)
def test_a_file_that_cannot_be_meant_is_exit_2_and_one_line(tmp_path, content):
    path = tmp_path / "rerank.toml"
    path.write_text(content)
    ended = rerank("run", "--config", path, "--print-config")
    assert ended.code == 2
    assert is_one_line(ended.err)


def test_a_file_that_is_not_there_is_exit_2(tmp_path):
    ended = rerank("run", "--config", tmp_path / "none.toml")
    assert ended.code == 2
    assert is_one_line(ended.err)
    assert "none.toml" in ended.err


def test_a_bad_value_in_the_environment_is_exit_2_and_names_it(requests_file):
    ended = rerank("run", requests_file, env={"RERANK_TOP_N": "many"})
    assert ended.code == 2
    assert is_one_line(ended.err)
    assert "top-n" in ended.err or "RERANK_TOP_N" in ended.err


def test_no_file_is_read_that_was_not_named(tmp_path):
    (tmp_path / "rerank.toml").write_text("broken =")
    (tmp_path / ".rerank.toml").write_text("broken =")
    ended = rerank("run", "--print-config", cwd=tmp_path, env={"HOME": str(tmp_path)})
    assert ended.code == 0


def test_what_print_config_shows_is_itself_a_configuration(tmp_path):
    shown = rerank("run", "in.jsonl", "--top-n", "7", "--no-documents", "--print-config").out
    (tmp_path / "shown.toml").write_bytes(shown)
    found = settings("--config", tmp_path / "shown.toml")
    assert found["inputs"] == (["in.jsonl"], "config file")
    assert found["top-n"] == (7, "config file")
    assert found["documents"] == (False, "config file")
