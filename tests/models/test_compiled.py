"""Compiling, without a GPU: the variable-length kernel stood in for, and a compiler that only traces."""

import logging
import re

import numpy as np
import pytest
import torch
from test_packed_rows import pairs
from varlen import stand_in

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.models import compiled as compiling
from rerank_cli.models import inputs as feeding
from rerank_cli.models.attention import packed as attention
from rerank_cli.models.compiled import CompiledModel, compiled
from rerank_cli.models.inputs import Frame, Placement
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.packed_row import TokenRow
from rerank_cli.models.prompts import profiles

pytestmark = pytest.mark.slow

PLACE = Placement(torch.device("cpu"), torch.bfloat16, None)
FRAME = Frame(512, 96)


@pytest.fixture(autouse=True)
def kernel(monkeypatch):
    """The CPU as if it had the kernel, for any states."""
    monkeypatch.setattr(feeding, "has_kernel", lambda _: True)
    monkeypatch.setattr(compiling, "has_kernel", lambda _: True)
    monkeypatch.setattr(attention, "_kernel_accepts", lambda _: True)
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", stand_in)
    attention.kernel_parameters.cache_clear()
    yield
    attention.kernel_parameters.cache_clear()
    torch.compiler.reset()


def prepared_rows(folder, texts, batch_tokens=512, **options):
    session = open_session(
        ModelOptions(str(folder), device="cpu", dtype="fp32", batch_tokens=batch_tokens, max_length=96, **options)
    )
    return session._scorer.model, session.prepare(PairTexts(*zip(*texts, strict=True), [0] * len(texts)))


@pytest.mark.parametrize("family", ["xlm-roberta", "modernbert-cls"])
@torch._dynamo.config.patch(error_on_recompile=True)
def test_rows_of_all_shapes_run_through_one_compilation_and_score_as_they_did(checkpoint, family):
    model, prepared = prepared_rows(checkpoint(family), pairs(150))
    fast = compiled(model, FRAME, PLACE, backend="aot_eager")
    assert isinstance(fast, CompiledModel)
    framed = 0
    for planned in prepared.rows:
        framed += fast.computed(planned.row) == FRAME.tokens != planned.row.tokens
        torch.testing.assert_close(fast.score(planned.row), model.score(planned.row), atol=1e-4, rtol=1e-4)
    assert framed > 5


@pytest.mark.parametrize("family", ["qwen3", "gemma"])
@torch._dynamo.config.patch(error_on_recompile=True)
def test_rows_with_and_without_shared_beginnings_run_through_one_compilation(decoder, family):
    texts = [(f"panda {number}", passage) for number in range(12) for _, passage in pairs(8 + number, seed=number)]
    bge = FamilyOptions(profile=profiles.BGE)
    model, prepared = prepared_rows(decoder(family), texts, batch_tokens=1024, family=bge)
    fast = compiled(model, Frame(1024, 256), PLACE, backend="aot_eager")
    assert isinstance(fast, CompiledModel)
    framed = 0
    for planned in prepared.rows:
        for row in (planned.row, planned.row.take(np.arange(planned.row.sequences - 1))):
            framed += fast.computed(row) == 1024 != row.tokens
            torch.testing.assert_close(fast.score(row), model.score(row), atol=1e-4, rtol=1e-4)
    assert framed > 5


def test_a_short_row_and_a_lone_sequence_run_as_they_are(checkpoint):
    model, prepared = prepared_rows(checkpoint("bert"), pairs(60))
    fast = CompiledModel(model, FRAME, "aot_eager")
    fast._compute = None
    row = prepared.rows[0].row
    short = row.take(np.arange(2))
    alone = TokenRow(np.full(500, 7, np.int32), np.zeros(500, np.int32), np.array([500]))
    for left in (short, alone):
        assert fast.computed(left) == left.tokens
        torch.testing.assert_close(fast.score(left), model.score(left))


@pytest.mark.parametrize(
    "failure", [RuntimeError("no\ncompiler"), ImportError("no compiler"), torch.OutOfMemoryError("no")]
)
def test_where_compiling_fails_the_model_runs_as_it_is_and_says_so_in_one_line(checkpoint, failure, caplog):
    def backend(*_):
        raise failure

    model, _ = prepared_rows(checkpoint("bert"), pairs(4))
    with caplog.at_level(logging.WARNING, "rerank_cli"):
        assert compiled(model, FRAME, PLACE, backend=backend) is model
    [line] = [record.getMessage() for record in caplog.records if record.name.startswith("rerank_cli")]
    assert line.startswith("--compile: ")
    assert "\n" not in line
    assert "going on without" in line


def test_a_compiled_model_that_scores_otherwise_is_not_used(checkpoint, caplog):
    def backend(graph, _):
        return lambda *args: tuple(part + 1 for part in graph(*args))

    model, _ = prepared_rows(checkpoint("bert"), pairs(4))
    assert compiled(model, FRAME, PLACE, backend=backend) is model
    assert "does not score as the plain one does" in caplog.text


def test_a_model_that_caps_its_attention_is_not_compiled(decoder, caplog):
    model, _ = prepared_rows(decoder("gemma2"), pairs(4), family=FamilyOptions(profile=profiles.BGE))
    assert compiled(model, Frame(1024, 256), PLACE, backend="eager") is model
    assert "--compile: " in caplog.text


@pytest.mark.parametrize(
    ("family", "frame", "why"),
    [
        ("deberta-v2", FRAME, "not for models that are padded"),
        ("bert", Frame(256, 96), "rows of 256 tokens are too few for sequences of up to 96.*Fix: --batch-tokens 384"),
    ],
)
def test_what_is_not_compiled_says_why(checkpoint, caplog, family, frame, why):
    model, _ = prepared_rows(checkpoint(family), pairs(4))
    assert compiled(model, frame, PLACE) is model
    assert re.search(why, caplog.text)


def test_without_the_kernel_nothing_is_compiled(checkpoint, monkeypatch, caplog):
    monkeypatch.setattr(compiling, "has_kernel", lambda _: False)
    session = open_session(ModelOptions(str(checkpoint("bert")), device="cpu", dtype="fp32", compile=True))
    assert not session.facts.compiled
    assert "--compile: takes fp16 or bf16 on a CUDA card (SM 8.0 or later), going on without" in caplog.text
