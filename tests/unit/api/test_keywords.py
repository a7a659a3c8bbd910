"""The keywords of the Python face are the flags of the command, with the same values."""

import inspect
from enum import Enum
from types import NoneType
from typing import Literal, get_args, get_origin, get_type_hints

import pytest

from rerank_cli import Reranker, run_file
from rerank_cli.api.reranker import _model_options
from rerank_cli.api.settings import ModelSettings, RunSettings, named_as_keywords
from rerank_cli.cli.flags.declare import flags_of, from_keywords
from rerank_cli.cli.run import configured
from rerank_cli.errors import BadRecord, UsageError


def flags(function, *besides):
    return {flag.name: flag for flag in flags_of(function) if flag.name not in besides}


def values(kind):
    """The values of a Literal, of a union with one, or of an enumeration."""
    if get_origin(kind) is Literal:
        return set(get_args(kind))
    if isinstance(kind, type) and issubclass(kind, Enum):
        return {member.value for member in kind}
    return set().union(*map(values, get_args(kind))) - {"auto"} if get_args(kind) else set()


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (ModelSettings, flags(_model_options, "model")),
        (RunSettings, flags(configured, "inputs", "output")),
    ],
)
def test_every_flag_is_a_keyword_with_the_same_values(settings, expected):
    hints = get_type_hints(settings)
    assert set(hints) == set(expected)
    for name, hint in hints.items():
        flag = expected[name].annotation
        assert (NoneType in get_args(hint)) == (NoneType in get_args(flag)), name
        assert values(hint) - {"auto"} == values(flag) - {"auto"}, name
        assert (bool in (hint, *get_args(hint))) == (bool in (flag, *get_args(flag))), name


def test_help_and_notebooks_see_every_keyword():
    assert {"model", "dtype", "max_length", "cutoff_layers"} <= set(inspect.signature(Reranker).parameters)
    assert {"inputs", "output", "model", "top_n", "on_error", "dtype"} <= set(inspect.signature(run_file).parameters)


def test_values_are_converted_as_on_the_command_line(tmp_path):
    config, devices = from_keywords(
        configured,
        {
            "inputs": tmp_path / "in.jsonl",
            "output": tmp_path / "out.jsonl",
            "cutoff_layers": (28, 8),
            "batch_tokens": 4096,
            "max_duration": 90.5,
            "devices": ["cpu", "cpu"],
            "on_error": "skip",
            "fuse": "weighted",
            "fuse_weight": 1,
        },
    )
    assert config.input.paths == (str(tmp_path / "in.jsonl"),)
    assert config.output.path == str(tmp_path / "out.jsonl")
    assert (config.model.family.cutoff_layers, config.model.batch_tokens) == ((8, 28), 4096)
    assert (config.max_duration, devices, config.on_error.value) == (90.5, ("cpu", "cpu"), "skip")
    assert config.fusion.weight == 1.0


def test_what_is_left_out_is_as_on_the_command_line(monkeypatch):
    monkeypatch.setenv("RERANK_TOP_N", "3")
    config, devices = from_keywords(configured, {"inputs": ["a", "b"], "output": "c"})
    assert (config.input.paths, config.top_n, devices) == (("a", "b"), None, None)
    assert config.model.name == "BAAI/bge-reranker-v2-m3"


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ({"top_n": 0}, "top_n=0: expected a whole number from 1"),
        ({"top_n": 1.5}, "top_n=1.5: expected a whole number from 1"),
        ({"top_n": True}, "top_n=True: expected a whole number from 1"),
        ({"dtype": "half"}, "dtype='half': expected auto, fp32, fp16 or bf16"),
        ({"sort": "maybe"}, "sort='maybe': expected true or false"),
        ({"sort": None}, "sort=None: expected true or false"),
        ({"fuse_weight": float("nan")}, "fuse_weight=nan: expected a number from 0 to 1"),
    ],
)
def test_a_value_that_the_flag_does_not_take_is_a_usage_error(setting, message):
    with pytest.raises(UsageError) as caught:
        from_keywords(configured, {"inputs": "a", "output": "b", **setting})
    assert str(caught.value) == message


def test_a_keyword_that_is_no_flag_is_a_type_error_with_a_suggestion():
    with pytest.raises(TypeError, match=r"unexpected keyword 'max_lenght', did you mean 'max_length'\?"):
        from_keywords(configured, {"inputs": "a", "output": "b", "max_lenght": 3})


def test_messages_name_keywords_and_leave_other_text_alone():
    with pytest.raises(BadRecord) as caught, named_as_keywords():
        raise BadRecord("code", "a--b.jsonl:3: /x/--y, -out: bad. Fix: --on-error skip, another -o, or --max-length 3")
    assert str(caught.value) == "a--b.jsonl:3: /x/--y, -out: bad. Fix: on_error skip, another output, or max_length 3"
    assert caught.value.code == "code"
