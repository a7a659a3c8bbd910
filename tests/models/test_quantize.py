import os
import subprocess
import sys

import numpy as np
import pytest
import torch
import transformers as tf
from test_packed_rows import pairs

from rerank_cli.choices import Quantize
from rerank_cli.engine.device import choose_dtype
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import UsageError
from rerank_cli.models.encoders.cpu.integers import InPlaceIntegerLayer
from rerank_cli.models.instructions import has_vnni
from rerank_cli.models.quantization import int8 as quantize_int8
from rerank_cli.models.quantization.apply import block_linears, quantize
from rerank_cli.models.quantization.fp8 import FLOAT8, Float8Linear, quantize_fp8, to_float8
from rerank_cli.models.quantization.int8 import Int8Linear
from rerank_cli.run.verify import kendall_tau

pytestmark = pytest.mark.slow

CUDA = torch.device("cuda", 0)


@pytest.fixture(autouse=True)
def product(monkeypatch):
    """torch's own product, or the one it stands for where torch cannot scale by rows on a CPU (before 2.13)."""

    def written_out(left, right, *, scale_a, scale_b, bias, out_dtype, use_fast_accum):
        assert use_fast_accum
        assert left.dtype == right.dtype == FLOAT8
        assert right.t().is_contiguous()
        found = (left.float() * scale_a) @ (right.float() * scale_b)
        return (found if bias is None else found + bias.float()).to(out_dtype)

    try:
        Float8Linear(torch.nn.Linear(32, 32))(torch.ones(32, 32, dtype=torch.bfloat16))
    except RuntimeError:
        monkeypatch.setattr(torch, "_scaled_mm", written_out)


@pytest.fixture
def linear():
    torch.manual_seed(0)
    return torch.nn.Linear(64, 48).bfloat16().requires_grad_(False)


@pytest.fixture
def card(monkeypatch):
    """A CUDA card of some capability, as far as torch is asked about it."""

    def pretend(major, minor):
        monkeypatch.setattr(torch.cuda, "get_device_name", lambda _: "A Card")
        monkeypatch.setattr(torch.cuda, "get_device_capability", lambda _: (major, minor))

    return pretend


def test_a_float8_linear_multiplies_what_its_float8_numbers_stand_for(linear):
    states = torch.randn(1, 37, 64, dtype=torch.bfloat16) * torch.logspace(-3, 3, 37)[:, None].bfloat16()
    small, scale = to_float8(states[0])
    quantized = Float8Linear(linear)
    weight = quantized.weight.view(FLOAT8).float() * quantized.weight_scale.T
    expected = (small.float() * scale) @ weight.T + linear.bias.float()
    found = quantized(states)
    assert found.shape == (1, 37, 48)
    torch.testing.assert_close(found[0].float(), expected, rtol=1e-2, atol=1e-2)


def test_a_float8_linear_is_within_a_few_hundredths_of_the_linear_it_stands_for(linear):
    states = torch.randn(1, 200, 64, dtype=torch.bfloat16)
    exact, found = linear(states).float(), Float8Linear(linear)(states).float()
    assert 0 < (found - exact).norm() / exact.norm() < 0.05


def test_a_token_of_zeros_stays_zero_and_one_that_is_no_number_shows(linear):
    states = torch.randn(3, 64, dtype=torch.bfloat16)
    states[0], states[1, 5] = 0, torch.inf
    found = Float8Linear(linear)(states)
    torch.testing.assert_close(found[0], linear.bias)
    assert found[1].isnan().all()
    assert found[2].isfinite().all()


def test_scales_lie_in_memory_that_goes_on_to_the_end_of_a_tile(linear, monkeypatch):
    given = {}
    monkeypatch.setattr(torch, "_scaled_mm", lambda *_, **options: given.update(options) or torch.zeros(37, 48))
    Float8Linear(linear)(torch.ones(37, 64, dtype=torch.bfloat16))
    assert (given["scale_a"].shape, given["scale_b"].shape) == ((37, 1), (1, 48))
    for scale in (given["scale_a"], given["scale_b"]):
        assert scale.is_contiguous()
        assert scale.untyped_storage().nbytes() == 256 * 4


def test_linears_of_the_blocks_are_quantized_but_for_a_trimmed_last_one_and_odd_widths(checkpoint, monkeypatch):
    monkeypatch.setattr("rerank_cli.engine.session.replace_layers", lambda *_, **__: 0)  # as on CUDA
    model = open_session(ModelOptions(str(checkpoint("xlm-roberta")), device="cpu", dtype="bf16"))._scorer.model
    blocks = model.backbone.encoder.layer
    blocks[0].output.dense = torch.nn.Linear(96, 47)
    assert quantize_fp8(block_linears(model.backbone)) == 2 * 6 - 1
    assert isinstance(blocks[1].attention.self.query, Float8Linear)
    assert not any(isinstance(module, Float8Linear) for module in [*blocks[2].modules(), *model._head.modules()])


@pytest.mark.parametrize("family", ["xlm-roberta", "modernbert-cls", "distilbert", "deberta-v2"])
def test_a_quantized_model_ranks_nearly_as_the_exact_one(checkpoint, family, monkeypatch):
    monkeypatch.setattr("rerank_cli.engine.session.replace_layers", lambda *_, **__: 0)  # as on CUDA
    texts = pairs(60)
    session = open_session(ModelOptions(str(checkpoint(family)), device="cpu", dtype="bf16"))
    prepared = session.prepare(PairTexts(*zip(*texts, strict=True), [0] * len(texts)))
    exact = session.score(prepared)
    assert quantize_fp8(block_linears(session._scorer.model.backbone)) > 0
    found = session.score(prepared)
    print(f"worst |Δ| {np.abs(found - exact).max():.2g} of {np.ptp(exact):.2g}, τ {kendall_tau(found, exact):.3f}")
    assert (found != exact).any()
    assert kendall_tau(found, exact) > 0.8


@pytest.mark.parametrize("device", ["cpu", "mps"])
def test_fp8_without_a_cuda_device_is_refused(device):
    with pytest.raises(UsageError, match=f"--quantize fp8: needs a CUDA card with float8.*runs on {device}"):
        choose_dtype("auto", torch.device(device), quantize=Quantize.FP8)


def test_fp8_on_a_card_without_float8_is_refused(card):
    card(8, 6)
    with pytest.raises(UsageError, match=r"A Card has no float8 \(SM 8.6, expected 8.9 or later\)"):
        choose_dtype("auto", CUDA, quantize=Quantize.FP8)


@pytest.mark.parametrize(
    ("product", "said"), [(RuntimeError("no kernel\nat x"), r"has no such kernel \(no kernel\)"), (0, "wrongly")]
)
def test_fp8_on_a_card_that_fails_its_trial_is_refused(card, monkeypatch, product, said):
    card(9, 0)
    ones = torch.ones(32, 32, dtype=torch.bfloat16)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: ones)

    def scaled(*_, **__):
        if isinstance(product, Exception):
            raise product
        return ones * product

    monkeypatch.setattr(torch, "_scaled_mm", scaled)
    with pytest.raises(UsageError, match=said):
        choose_dtype("auto", CUDA, quantize=Quantize.FP8)


def test_fp8_is_worked_out_in_bf16_and_in_nothing_else(card, monkeypatch):
    card(9, 0)
    ones = torch.ones(32, 32, dtype=torch.bfloat16)
    monkeypatch.setattr(torch, "ones", lambda *_, **__: ones)
    assert choose_dtype("auto", CUDA, quantize=Quantize.FP8) == torch.bfloat16
    with pytest.raises(UsageError, match=r"fp8 needs bf16 \(got --dtype fp16\)\. Fix: --dtype bf16"):
        choose_dtype("fp16", CUDA, quantize=Quantize.FP8)


def test_an_int8_linear_is_within_a_few_hundredths_of_the_linear_it_stands_for(linear):
    exact, states = linear.float(), torch.randn(1, 600, 64)
    for most, error in ((127, 0.02), (63, 0.03))[not has_vnni() :]:  # without VNNI products of 127 overflow
        found = Int8Linear(exact, most)(states)
        assert found.shape == (1, 600, 48)
        assert 0 < (found - exact(states)).norm() / exact(states).norm() < error


def test_a_token_in_int8_does_not_depend_on_the_tokens_beside_it(linear):
    quantized, states = Int8Linear(linear.float()), torch.randn(300, 64)
    states[1] *= 1000
    alone = torch.cat([quantized(states[token : token + 1]) for token in range(300)])
    torch.testing.assert_close(quantized(states), alone, rtol=1e-6, atol=1e-6)


def test_a_token_of_zeros_stays_zero_in_int8_and_one_that_is_no_number_shows(linear):
    states = torch.randn(3, 64)
    states[0], states[1, 5] = 0, torch.nan
    found = Int8Linear(linear.float())(states)
    torch.testing.assert_close(found[0], linear.bias)
    assert found[1].isnan().all()
    assert found[2].isfinite().all()


@pytest.mark.parametrize("family", ["xlm-roberta", "modernbert-cls", "distilbert", "deberta-v2"])
def test_a_model_in_int8_ranks_nearly_as_the_exact_one(checkpoint, family):
    texts = pairs(60)
    found = {}
    for how in (Quantize.NONE, Quantize.INT8):
        session = open_session(ModelOptions(str(checkpoint(family)), device="cpu", quantize=how))
        prepared = session.prepare(PairTexts(*zip(*texts, strict=True), [0] * len(texts)))
        found[how] = session.score(prepared)
        assert session.facts.quantize == how.value
    exact, quantized = found.values()
    worst, tau = np.abs(quantized - exact).max(), kendall_tau(quantized, exact)
    print(f"worst |Δ| {worst:.2g} of {np.ptp(exact):.2g}, τ {tau:.3f}")
    assert (quantized != exact).any()
    assert tau > 0.8


@pytest.mark.parametrize("dtype", ["fp32", "bf16"])
def test_a_bert_layer_of_integers_is_near_the_exact_one(checkpoint, dtype):
    texts = pairs(60)
    found = {}
    for how in (Quantize.NONE, Quantize.INT8):
        session = open_session(ModelOptions(str(checkpoint("bert")), device="cpu", dtype=dtype, quantize=how))
        found[how] = session.score(session.prepare(PairTexts(*zip(*texts, strict=True), [0] * len(texts))))
        modules = list(session._scorer.model.backbone.modules())
        assert sum(isinstance(module, InPlaceIntegerLayer) for module in modules) == 2 * (how is Quantize.INT8)
        assert sum(isinstance(module, Int8Linear) for module in modules) == 2 * 4 * (how is Quantize.INT8)
        assert session.facts.dtype == dtype
    exact, quantized = found.values()
    assert (quantized != exact).any()
    assert kendall_tau(quantized, exact) > 0.8


def test_states_in_bf16_give_the_integers_of_the_same_states_in_fp32(linear):
    quantized, states = Int8Linear(linear.float()), torch.randn(300, 64).bfloat16()
    found = quantized(states)
    assert found.dtype == torch.bfloat16
    assert torch.equal(found, quantized(states.float()).bfloat16())


@pytest.mark.parametrize(("vnni", "machine", "told"), [(False, "x86_64", 1), (True, "x86_64", 0), (False, "arm64", 0)])
def test_a_run_says_so_where_int8_is_likely_to_gain_nothing(checkpoint, monkeypatch, vnni, machine, told):
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
    monkeypatch.setattr("platform.machine", lambda: machine)
    options = ModelOptions(str(checkpoint("bert")), device="cpu", quantize=Quantize.INT8)
    assert sum("without AVX-512 VNNI" in line for line in open_session(options).facts.remarks) == told
    plain = ModelOptions(str(checkpoint("bert")), device="cpu")
    assert not any("VNNI" in line for line in open_session(plain).facts.remarks)


def test_int8_is_for_a_cpu_and_beside_fp32_or_bf16():
    with pytest.raises(UsageError, match="--quantize int8: needs a CPU, this runs on cuda"):
        choose_dtype("auto", CUDA, quantize=Quantize.INT8)
    cpu = torch.device("cpu")
    assert choose_dtype("auto", cpu, quantize=Quantize.INT8) == torch.float32
    assert choose_dtype("bf16", cpu, quantize=Quantize.INT8) == torch.bfloat16
    with pytest.raises(UsageError, match=r"int8 needs fp32 or bf16 \(got --dtype fp16\)\. Fix: --dtype fp32"):
        choose_dtype("fp16", cpu, quantize=Quantize.INT8)


def test_a_torch_without_integer_products_is_told_of_in_one_line(monkeypatch):
    def missing(*_):
        raise RuntimeError("no kernel\nfor this processor")

    monkeypatch.setattr(quantize_int8, "to_uint8", missing)
    with pytest.raises(UsageError, match=r"int8: not available here \(no kernel\)$"):
        choose_dtype("auto", torch.device("cpu"), quantize=Quantize.INT8)


def test_integers_are_not_multiplied_by_reference_code():
    """With VNNI and without AMX oneDNN took reference code for signed states: right, but very slow."""
    program = (
        "import torch; from rerank_cli.models.quantization.int8 import Int8Linear;"
        "Int8Linear(torch.nn.Linear(64, 48))(torch.ones(300, 64))"
    )
    done = subprocess.run(
        [sys.executable, "-c", program], env={**os.environ, "ONEDNN_VERBOSE": "1"}, capture_output=True, text=True,
        check=True,
    )  # fmt: skip
    used = [line.split(",")[5] for line in done.stdout.splitlines() if ",exec,cpu,matmul," in line]
    assert used
    assert not [kernel for kernel in used if kernel.startswith("ref")]


@pytest.mark.parametrize("how", [Quantize.INT8, Quantize.FP8])
def test_a_model_without_linear_layers_to_quantize_is_refused(decoder, how):
    backbone = tf.AutoModel.from_pretrained(decoder("gpt2"))
    with pytest.raises(UsageError, match=f"--quantize {how.value}: GPT2Model has no linear layers that it applies to"):
        quantize(backbone, how)


def test_stock_code_that_asks_for_the_dtype_of_a_weight_keeps_its_states():
    config = tf.T5Config(d_model=64, d_ff=128, feed_forward_proj="gated-gelu")
    block = tf.models.t5.modeling_t5.T5DenseGatedActDense(config).bfloat16().eval()
    states = torch.randn(1, 5, 64, dtype=torch.bfloat16)
    exact = block(states)
    block.wo = Float8Linear(block.wo)
    torch.testing.assert_close(block(states), exact, atol=0.1 * exact.detach().abs().max().item(), rtol=0)
