import logging

import pytest
import torch

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.row_size import Cost, cost_of, row_tokens, rows_for
from rerank_cli.engine.session import open_session

GB = 1_000_000_000
LARGE = Cost(operations=606_000_000, memory=57_000)  # XLM-R-large in half precision
SMALL = Cost(operations=21_000_000, memory=21_000)  # MiniLM of six layers


@pytest.mark.parametrize(
    ("cost", "free", "tokens"),
    [(LARGE, 75 * GB, 32_768), (SMALL, 75 * GB, 131_072), (LARGE, 1 * GB, 8_192), (Cost(10**10, 200_000), GB, 2_048)],
)
def test_a_row_keeps_a_card_busy_and_takes_half_of_its_free_memory_at_most(cost, free, tokens):
    assert row_tokens(cost, free) == tokens


def test_a_large_model_still_gets_rows_of_some_length_where_they_fit():
    assert row_tokens(Cost(14_000_000_000, 400_000), 60 * GB) == 16_384


@pytest.mark.parametrize("family", ["bert", "deberta-v2"])
def test_the_cost_of_a_token_goes_by_the_weights_it_meets(checkpoint, family, monkeypatch, caplog):
    model = open_session(ModelOptions(str(checkpoint(family)), device="cpu"))._scorer.model
    cost = cost_of(model, torch.float16, 512)
    blocks = 3 * (4 * 48 * 48 + 2 * 48 * 96)
    assert 2 * blocks < cost.operations < 2.4 * blocks
    assert cost.memory == 2 * (12 * 48 + 4 * 96 + (0 if model.packed else 4 * 512 * 4))
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda _: (GB, 2 * GB))
    with caplog.at_level(logging.INFO, "rerank_cli"):
        assert rows_for(model, torch.device("cuda"), torch.float16, 512) == (131_072 if model.packed else 16_384)
    assert "1.0 GB are free" in caplog.text
