import json
from dataclasses import asdict, replace

import pytest

from rerank_cli.choices import TruncationRule
from rerank_cli.errors import UsageError
from rerank_cli.models.prompts import profiles
from rerank_cli.models.prompts.profile_files import read_profile
from rerank_cli.models.prompts.profiles import BUILT_IN, Profile, fill


def written(tmp_path, content, name="mine.json"):
    path = tmp_path / name
    path.write_text(content if isinstance(content, str) else json.dumps(content))
    return str(path)


def test_a_file_may_build_on_a_built_in_one(tmp_path):
    found = read_profile(written(tmp_path, {"base": "bge", "prompt": "Is it so?", "no": "No"}))
    assert (found.name, found.prompt, found.no, found.suffix) == ("mine", "Is it so?", "No", profiles.BGE.suffix)
    assert found.truncation_rule is TruncationRule.FLAGEMBEDDING


def test_toml_says_the_same_as_json(tmp_path):
    toml = 'prefix = ["<a>", "b"]\nquery = "q {query}"\nyes = "Yes"\ndivide_by = 5\ntruncation_rule = "modelcard"\n'
    values = {
        "prefix": ["<a>", "b"],
        "query": "q {query}",
        "yes": "Yes",
        "divide_by": 5,
        "truncation_rule": "modelcard",
    }
    assert read_profile(written(tmp_path, toml, "mine.toml")) == read_profile(written(tmp_path, values))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ({"base": ["x"]}, "no profile"),
        ({"base": {}}, "no profile"),
        ({"base": "bge", "truncation_rule": ["x"]}, "truncation_rule"),
        ({"suffx": "x"}, "unknown setting 'suffx'"),
        ({"query": "{query} {query}"}, "once"),
        ({"passage": "no slot"}, "once"),
        ({"query": "{query!r}"}, "only a name"),
        ({"query": "{query:>10}"}, "only a name"),
        ({"query": "{query"}, "not a template"),
        ({"suffix": "{query}"}, "contains {query}"),
        ({"prefix": [1]}, "prefix"),
        ({"max_length": True}, "max_length"),
        ({"max_length": -1}, "positive"),
        ({"query_share": 2}, "query_share"),
        ({"bos": "maybe"}, "bos"),
        ({"no": "No"}, "needs an answer"),
        ([1], "table"),
        ("{", "unreadable"),
    ],
)
def test_what_is_wrong_with_a_profile_is_one_line(tmp_path, content, message):
    with pytest.raises(UsageError, match=message) as told:
        read_profile(written(tmp_path, content))
    assert "\n" not in str(told.value)


def test_a_name_that_is_neither_a_file_nor_built_in():
    with pytest.raises(UsageError, match="bge, ctxl, monot5, mt5, mt5-3b, mxbai, ptt5, qwen3, zerank"):
        read_profile("qwen4")


def test_braces_in_texts_mean_nothing():
    assert fill("{{{query}}}", query="{passage} {0}") == "{{passage} {0}}"


def test_options_that_would_change_nothing_are_not_offered():
    assert profiles.BGE.slots == {"prompt", "query_instruction", "passage_instruction"}
    assert profiles.QWEN3.slots == {"query_instruction"}
    assert profiles.MXBAI.slots == {"prompt", "query_instruction"}
    assert Profile("bare", query="{query}", passage="{passage}").slots == set()


@pytest.mark.parametrize("name", ["ctxl", "zerank", "qwen3"])
def test_a_profile_is_read_as_it_was_written(tmp_path, name):
    values = {key: value for key, value in asdict(BUILT_IN[name]).items() if value is not None}
    assert read_profile(written(tmp_path, values)) == BUILT_IN[name]


def test_a_newer_setting_leaves_the_identity_of_other_profiles_as_it_was():
    """Runs with `--profile` that an older version began are resumed."""
    names = {"first", "strips", "one_string"}
    assert not names & BUILT_IN["qwen3"].identity.keys()
    assert names & BUILT_IN["ctxl"].identity.keys() == {"first", "one_string"}
    assert list(BUILT_IN["bge"].identity)[:3] == ["name", "prefix", "query"]
    assert replace(BUILT_IN["ctxl"], name="mine").identity == BUILT_IN["ctxl"].identity


def test_the_whole_prompt_of_a_profile():
    asked = replace(BUILT_IN["ctxl"], query_instruction="Prefer {new} ones.")
    task = "Check whether a given document contains information helpful to answer the query.\n"
    assert asked.written == f"{task}<Document> {{passage}}\n<Query> {{query}} Prefer {{new}} ones. ??"
    assert BUILT_IN["ctxl"].written == f"{task}<Document> {{passage}}\n<Query> {{query}} ??"
