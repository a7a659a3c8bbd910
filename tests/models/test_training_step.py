"""Gradients of a step: packed against padded rows, in parts, recomputed, in bf16, with adapters and dropout."""

import shutil

import numpy as np
import pytest
import torch
import transformers as tf
from test_training_export import LORA, groups
from tiny import PARITY
from varlen import stand_in

from rerank_cli.choices import Loss, Schedule
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models import inputs
from rerank_cli.models.adapters import LoraSettings
from rerank_cli.models.attention import packed as attention
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.trainable import TrainedPart, freeze, freeze_without_gradient
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.losses import LossSettings
from rerank_cli.training.memory import part_tokens_for
from rerank_cli.training.optimizer import Optimizer, OptimizerSettings
from rerank_cli.training.setup import open_model
from rerank_cli.training.step import CompressionChoice, Trainer
from rerank_cli.training.tokens import Lengths

pytestmark = pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning")
BATCH = groups(count=3, size=4, seed=5)
ENCODERS = (
    "bert", "electra", "distilbert", "roberta", "camembert", "modernbert-cls", "modernbert-mean", "gte",
)  # fmt: skip
DECODERS = ("gemma", "gemma2", "llama", "mistral", "qwen2", "qwen3", "granite")


def trainer_of(folder, part=None, *, packed=True, loss=Loss.CE, seed=0, family=None, lengths=None, **options):
    torch.manual_seed(3)
    chosen = ModelOptions(str(folder), device="cpu", family=family or FamilyOptions(), **options)
    opened = open_model(chosen, part or TrainedPart(dropout=0.0), lengths or Lengths(), packed=packed)
    if (
        part is not None and part.lora is not None
    ):  # the second matrices begin at zero, and so would the first's gradient
        for name, weight in opened.trainable.trained.items():
            if "lora_B" in name:
                torch.nn.init.normal_(weight, 0, 0.1)
    settings = LossSettings(loss)
    freeze_without_gradient(opened.trainable, settings.shift_invariant)
    return Trainer(
        opened.trainable, opened.tokenizer, settings, Optimizer(opened.trainable.trained, OptimizerSettings()), seed
    )


def gradients(trainer, batch=BATCH, step=0):
    report = trainer.gradients(step, batch, batch)
    found = {name: weight.grad.clone() for name, weight in trainer.model.trained.items() if weight.grad is not None}
    return report, found


def assert_same(one, other, tolerance=1e-5):
    (report, found), (other_report, other_found) = one, other
    assert abs(report.loss - other_report.loss) <= tolerance
    assert found.keys() == other_found.keys()
    scale = max(float(gradient.abs().max()) for gradient in other_found.values())
    assert scale > 0
    worst = max(float((found[name] - other_found[name]).abs().max()) for name in found)
    print(f"loss {report.loss - other_report.loss:.1e}, gradients {worst:.1e} of {scale:.1e}")
    assert worst <= 20 * tolerance * max(1, scale)


@pytest.mark.parametrize("name", ENCODERS)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_packed_rows_of_an_encoder_have_the_gradients_of_padded_ones(checkpoint, name, lora):
    part = TrainedPart(lora, dropout=0.0)
    packed, padded = (trainer_of(checkpoint(name), part, packed=packed) for packed in (True, False))
    assert packed.model.model.packed
    assert not padded.model.model.packed
    assert_same(gradients(packed), gradients(padded))


@pytest.mark.parametrize("name", DECODERS)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_packed_rows_of_a_decoder_have_the_gradients_of_padded_ones(decoder, name, lora):
    part, family = TrainedPart(lora, dropout=0.0), FamilyOptions(profile=profiles.BGE)
    packed, padded = (trainer_of(decoder(name), part, packed=packed, family=family) for packed in (True, False))
    assert packed.model.model.packed
    assert_same(gradients(packed), gradients(padded))


@pytest.mark.parametrize("name", ["deberta-v2", "mpnet"])
def test_types_that_cannot_be_packed_are_trained_padded(checkpoint, name):
    trainer = trainer_of(checkpoint(name))
    assert not trainer.model.model.packed
    losses = [trainer.run(step, 1e-3, BATCH, BATCH).loss for step in range(5)]
    assert losses[-1] < losses[0]


@pytest.mark.parametrize("part_tokens", [1, 40, 150, 400])
@pytest.mark.parametrize("folder", ["bert", "gemma", "minicpm-layerwise"])
def test_gradients_do_not_depend_on_the_parts(folder, part_tokens):
    whole, divided = trainer_of(PARITY / folder), trainer_of(PARITY / folder)
    divided.part_tokens = part_tokens
    one, other = gradients(whole), gradients(divided)
    assert one[0].parts == 1
    assert other[0].parts > 1 or part_tokens > 200
    assert_same(other, one)


def test_parts_of_a_compressed_model_that_teaches_itself_have_the_same_gradients():
    found = []
    for part_tokens in (1 << 20, 60):
        trainer = trainer_of(PARITY / "gemma2-lightweight")
        trainer.compression = CompressionChoice((2, 4), (2,), vary=False)
        trainer.part_tokens = part_tokens
        found.append(gradients(trainer))
    assert_same(*found)


@pytest.mark.parametrize("dropout", [0.0, 0.1])
@pytest.mark.parametrize("folder", ["bert", "gemma", "minicpm-layerwise"])
def test_recomputed_activations_have_the_same_gradients(folder, dropout):
    parts = [
        TrainedPart(dropout=dropout, attention_dropout=dropout, recompute=recompute) for recompute in (False, True)
    ]
    assert_same(*(gradients(trainer_of(PARITY / folder, part)) for part in parts))


@pytest.fixture
def albert(tmp_path):
    shape = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2, "intermediate_size": 48}
    config = tf.AlbertConfig(vocab_size=2000, embedding_size=16, num_labels=1, pad_token_id=0, **shape)
    tf.AlbertForSequenceClassification(config).save_pretrained(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PARITY / "bert" / file, tmp_path)
    return tmp_path


def test_a_type_that_cannot_compute_activations_again_is_refused(albert):
    fault = r"--recompute: AlbertForSequenceClassification of transformers cannot .*Fix: a smaller --batch-tokens"
    with pytest.raises(UsageError, match=fault):
        trainer_of(albert, TrainedPart(recompute=True), packed=False)


def test_dropout_reaches_every_layer_of_a_type_with_other_names_for_it(albert):
    for dropout in (0.0, 0.25):
        part = TrainedPart(dropout=dropout, attention_dropout=0.5)
        modules = trainer_of(albert, part, packed=False).model.modules.named_modules()
        found = {name: module.p for name, module in modules if isinstance(module, torch.nn.Dropout)}
        attention = {name for name in found if name.endswith("attention_dropout")}
        assert {found.pop(name) for name in attention} == {0.5}
        assert set(found.values()) == {dropout}
        assert "0.dropout" in found  # before the classifier


def test_frozen_tensors_stay_as_they_are_and_the_others_are_trained():
    trainer = trainer_of(PARITY / "bert")
    freeze(trainer.model, ["*word_embeddings*", "*.layer.0.*"])
    trainer.optimizer = Optimizer(trainer.model.trained, OptimizerSettings())
    frozen = {name for name in trainer.model.named if "word_embeddings" in name or ".layer.0." in name}
    assert len(frozen) > 10
    before = {name: weight.detach().clone() for name, weight in trainer.model.named.items()}
    trained = trainer.model.trained.keys()
    trainer.run(0, 1e-2, BATCH, BATCH)
    assert not frozen & trained
    for name, weight in trainer.model.named.items():
        assert torch.equal(weight, before[name]) == (name not in trained), name


@pytest.mark.parametrize(
    ("patterns", "fault"),
    [
        (["*words*"], r"--freeze \*words\*: no trained tensor has such a name"),
        (["*"], r"--freeze \*: nothing is left to train"),
    ],
)
def test_patterns_that_freeze_nothing_or_everything_are_refused(patterns, fault):
    with pytest.raises(UsageError, match=fault):
        freeze(trainer_of(PARITY / "bert").model, patterns)


def test_dropout_depends_on_the_seed_the_step_and_the_row_alone():
    part = TrainedPart(dropout=0.2, attention_dropout=0.2)
    trainer = trainer_of(PARITY / "bert", part)
    first = gradients(trainer)
    torch.manual_seed(99)
    again = gradients(trainer)
    assert first[0].loss == again[0].loss
    assert all(torch.equal(first[1][name], again[1][name]) for name in first[1])
    assert gradients(trainer, step=1)[0].loss != first[0].loss
    assert gradients(trainer_of(PARITY / "bert", part, seed=1))[0].loss != first[0].loss
    trainer.part_tokens = 60  # computes rows twice
    divided = gradients(trainer)
    assert divided[0].parts > 1
    assert gradients(trainer_of(PARITY / "bert", TrainedPart(dropout=0.2)))[0].loss != first[0].loss


def test_the_dropout_of_adapters_is_drawn_too():
    with_dropout = trainer_of(PARITY / "gemma", TrainedPart(LoraSettings(4, 8.0, 0.5)))
    without = trainer_of(PARITY / "gemma", TrainedPart(LORA))
    assert gradients(with_dropout)[0].loss != gradients(without)[0].loss


def test_bf16_products_have_nearly_the_gradients_of_fp32():
    exact, half = gradients(trainer_of(PARITY / "bert")), gradients(trainer_of(PARITY / "bert", dtype="bf16"))
    assert half[0].loss != exact[0].loss
    assert abs(half[0].loss - exact[0].loss) < 0.02
    assert all(gradient.dtype == torch.float32 for gradient in half[1].values())
    norm = sum(float((half[1][name] - exact[1][name]).norm() ** 2) for name in exact[1]) ** 0.5
    assert norm < 0.1 * exact[0].gradient_norm
    assert half[0].scores.dtype == torch.float32


def test_fp16_is_refused():
    with pytest.raises(UsageError, match="bf16"):
        trainer_of(PARITY / "bert", dtype="fp16")


def test_a_step_of_two_processes_is_that_of_one():
    """Each computes its own groups; the sums of gradients and losses are those of the whole batch."""
    whole = trainer_of(PARITY / "bert")
    expected = gradients(whole)
    halves = [trainer_of(PARITY / "bert") for _ in range(2)]
    shares = [BATCH[::2], BATCH[1::2]]
    reports = [trainer.gradients(0, share, BATCH) for trainer, share in zip(halves, shares, strict=True)]
    assert abs(sum(report.loss for report in reports) - expected[0].loss) < 1e-6
    both = [trainer.model.trained for trainer in halves]
    for name, gradient in expected[1].items():
        assert torch.allclose(both[0][name].grad + both[1][name].grad, gradient, atol=1e-6), name


def test_evaluation_in_between_leaves_masks_that_autograd_can_save(decoder):
    """A mask made in inference mode cannot be part of a graph; masks are cached between both."""
    folder = decoder("mistral")
    long = [DrawnGroup(0, "what", ("panda " * 40, "bear " * 37))]
    session = open_session(ModelOptions(str(folder), device="cpu", dtype="fp32"))
    session.score(session.prepare(PairTexts(["what"] * 2, long[0].passages, [0, 0])))
    trainer = trainer_of(folder)
    assert gradients(trainer, long)[0].gradient_norm > 0


def test_the_variable_length_kernel_has_gradients(decoder, monkeypatch):
    """torch's operator is called itself while gradients are computed: ours, for the compiler, has none."""
    expected = gradients(trainer_of(decoder("gemma")))
    monkeypatch.setattr(inputs, "has_kernel", lambda _device: True)
    monkeypatch.setattr(attention, "_kernel_accepts", lambda _states: True)
    monkeypatch.setattr(attention, "kernel_parameters", lambda: frozenset(("scale", "window_size", "enable_gqa")))
    monkeypatch.setattr("torch.nn.attention.varlen.varlen_attn", stand_in)
    assert_same(gradients(trainer_of(decoder("gemma"))), expected)


def test_memory_that_runs_out_divides_the_batch_from_then_on(monkeypatch):
    trainer = trainer_of(PARITY / "bert")
    expected = gradients(trainer_of(PARITY / "bert"))
    compute = trainer.model.model.logits
    held = 0

    def small_device(row):
        nonlocal held
        held = held + row.tokens if torch.is_grad_enabled() else 0
        if held > 250:
            held = 0
            raise torch.OutOfMemoryError("too many tokens")
        found = compute(row)
        if found.requires_grad:
            found.register_hook(lambda _: release())
        return found

    def release():
        nonlocal held
        held = 0

    monkeypatch.setattr(trainer.model.model, "logits", small_device)
    found = gradients(trainer)
    assert trainer.out_of_memory > 0
    assert trainer.part_tokens <= 250
    assert_same(found, expected)
    before = trainer.out_of_memory
    gradients(trainer)
    assert trainer.out_of_memory == before


def test_a_pair_that_does_not_fit_ends_the_run(monkeypatch):
    trainer = trainer_of(PARITY / "bert")

    def no_memory(_row):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(trainer.model.model, "logits", no_memory)
    with pytest.raises(ModelError, match="out of memory on a single pair"):
        gradients(trainer)


def test_a_loss_that_is_not_finite_ends_the_run_before_the_weights_change():
    trainer = trainer_of(PARITY / "bert")
    name, weight = next(iter(trainer.model.trained.items()))
    other = {key: value.detach().clone() for key, value in trainer.model.trained.items() if key != name}
    weight.data[5:50] = torch.nan
    with pytest.raises(ModelError, match="the loss is nan"):
        trainer.run(0, 1e-3, BATCH, BATCH)
    assert all(torch.equal(other[key], trainer.model.trained[key]) for key in other)


def test_a_prompt_of_a_record_replaces_the_familys_for_decoders_only():
    own = [DrawnGroup(0, "what", ("a bear", "panda"), prompt="Is B about A?"), *groups(count=1, seed=8)]
    plain = [DrawnGroup(0, "what", ("a bear", "panda")), own[1]]
    decoder = trainer_of(PARITY / "gemma")
    assert decoder.tokenizer.tokenize(own).tokens.tolist() != decoder.tokenizer.tokenize(plain).tokens.tolist()
    assert gradients(decoder, own)[0].loss != gradients(decoder, plain)[0].loss
    encoder = trainer_of(PARITY / "bert")
    assert gradients(encoder, own)[0].loss == gradients(encoder, plain)[0].loss
    assert encoder.tokenizer.prompts_left_out > 0


def test_instructions_of_a_record_are_written_before_its_texts():
    trainer = trainer_of(PARITY / "gemma")
    given = [DrawnGroup(0, "what", ("a bear",), query_prompt="Q: ", passage_prompt="P: ")]
    same = trainer_of(PARITY / "gemma", family=FamilyOptions(query_instruction="Q: ", passage_instruction="P: "))
    expected = same.tokenizer.tokenize([DrawnGroup(0, "what", ("a bear",))]).rows[0].ids
    assert np.array_equal(trainer.tokenizer.tokenize(given).rows[0].ids, expected)


def test_a_passage_prompt_without_a_place_is_refused(decoder):
    trainer = trainer_of(
        decoder("gemma"), family=FamilyOptions(profile=profiles.Profile("x", passage="{passage}", yes="Yes"))
    )
    with pytest.raises(UsageError, match="passage_prompt"):
        trainer.tokenizer.tokenize([DrawnGroup(0, "what", ("a bear",), passage_prompt="P: ")])


@pytest.mark.parametrize("lengths", [{"query": 400, "passage": 400}, {"query": 1, "passage": 1}])
def test_lengths_that_do_not_fit_the_model_are_refused(lengths):
    with pytest.raises(UsageError, match="--passage-max-length"):
        trainer_of(PARITY / "bert", lengths=Lengths(**lengths))


def test_the_learning_rate_rises_and_falls():
    rates = {
        schedule: [round(OptimizerSettings(1.0, warmup=0.2, schedule=schedule).rate(step, 10), 3) for step in range(10)]
        for schedule in Schedule
    }
    assert rates[Schedule.CONSTANT] == [0.5, *[1.0] * 9]
    assert rates[Schedule.LINEAR] == [0.5, 1.0, 1.0, 0.875, 0.75, 0.625, 0.5, 0.375, 0.25, 0.125]
    assert rates[Schedule.COSINE][2] == 1.0
    assert rates[Schedule.COSINE][6] == 0.5
    assert OptimizerSettings(1.0, warmup=0, schedule=Schedule.LINEAR).rate(0, 4) == 1.0
    assert OptimizerSettings(1.0, warmup=4).rate(0, 100) == 0.25


def test_gradients_are_clipped_to_the_norm():
    changes = []
    for clip in (0.0, 1e-3):
        trainer = trainer_of(PARITY / "bert")
        trainer.optimizer = Optimizer(trainer.model.trained, OptimizerSettings(clip=clip, weight_decay=0, eps=1e-3))
        before = [weight.detach().clone() for weight in trainer.model.trained.values()]
        norm = trainer.run(0, 1e-3, BATCH, BATCH).gradient_norm
        changes.append(
            sum(float((w.detach() - b).norm()) for w, b in zip(trainer.model.trained.values(), before, strict=True))
        )
        assert norm > 0.01
    assert changes[1] < changes[0]


def test_the_state_of_the_optimizer_is_saved_by_name():
    one, other = trainer_of(PARITY / "bert"), trainer_of(PARITY / "bert")
    one.run(0, 1e-3, BATCH, BATCH)
    with torch.no_grad():
        for name, weight in other.model.trained.items():
            weight.copy_(one.model.trained[name])
    other.optimizer.load(one.optimizer.state())
    for trainer in (one, other):
        trainer.run(1, 1e-3, BATCH, BATCH)
    assert all(torch.equal(weight, other.model.trained[name]) for name, weight in one.model.trained.items())


def test_memory_is_estimated_from_the_shape():
    plain = trainer_of(PARITY / "bert").model
    assert part_tokens_for(plain, recompute=False) == 8192


def test_compression_varies_by_step_and_repeats():
    choice = CompressionChoice((2, 4), (1, 2, 4))
    drawn = [choice.at(7, step) for step in range(40)]
    assert drawn == [choice.at(7, step) for step in range(40)]
    assert {one.ratio for one in drawn} == {1, 2, 4}
    assert {tuple(sorted(one.layers)) for one in drawn} == {(), (2,), (4,), (2, 4)}
