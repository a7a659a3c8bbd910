from types import SimpleNamespace

import pytest
import torch

from rerank_cli.engine.pending import RowWorkers
from rerank_cli.engine.profiling import peak


def test_the_peak_is_the_best_of_all_products(monkeypatch):
    rates = iter([3.0, 1.0, 9.0, 2.0] * 100)
    monkeypatch.setattr(peak, "_SMALLEST", 16)
    monkeypatch.setattr(peak, "_LARGEST", 16)
    monkeypatch.setattr(peak, "_rate", lambda *_: next(rates))
    assert peak.matmul_peak(torch.device("cpu"), "fp32", seconds=0.0) == 9.0


def test_every_way_to_multiply_gives_the_same_product():
    for dtype, tolerance in ((torch.float32, 1e-4), (torch.bfloat16, 1e-1)):
        torch.manual_seed(1)
        with torch.inference_mode():
            first, *others = [way.run().float() for way in peak._ways(8, 16, 12, torch.device("cpu"), dtype)]
        assert first.shape == (8, 12)
        assert others
        for other in others:
            torch.testing.assert_close(other, first, atol=tolerance, rtol=tolerance)


def test_integers_are_multiplied_as_many_as_other_numbers():
    with torch.inference_mode():
        (product,) = peak._ways(8, 64, 12, torch.device("cpu"), torch.int8)
        assert product.operations == 2 * 8 * 64 * 12
        found = product.run()
    assert found.shape == (8, 12)
    assert found.abs().max() > 127  # sums of products of 8-bit numbers


@pytest.mark.parametrize(
    ("dtype", "quantize", "precision"), [("bf16", "none", "bf16"), ("fp32", "int8", "int8"), ("bf16", "fp8", "bf16")]
)
def test_a_model_is_compared_with_products_of_its_own_precision(dtype, quantize, precision):
    assert peak.precision_of(SimpleNamespace(dtype=dtype, quantize=quantize)) == precision


def test_a_product_on_every_lane_counts_for_as_many(monkeypatch):
    monkeypatch.setattr(peak, "_SMALLEST", 32)
    (product, *_) = peak._products(32, torch.device("cpu"), torch.float32)
    runs = []
    counted = peak._Product(product.operations, lambda: runs.append(product.run()))
    workers = peak._side_by_side(counted, RowWorkers(3))
    workers.run()
    assert len(runs) == 3
    assert workers.operations == 3 * product.operations == 3 * 2 * 32**3


def test_threads_are_as_before_afterwards(monkeypatch):
    monkeypatch.setattr(peak, "_SMALLEST", 64)
    monkeypatch.setattr(peak, "_LARGEST", 64)
    before = torch.get_num_threads()
    assert peak.matmul_peak(torch.device("cpu"), "fp32", seconds=0.0) > 0
    assert torch.get_num_threads() == before


def test_of_two_measurements_the_better_one_counts():
    assert peak.Peak(before=2.0, after=3.0, precision="fp32").best == 3.0
