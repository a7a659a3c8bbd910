"""A trained model, written to a folder and read back by `rerank run`'s session, peft and sentence-transformers."""

import json
from dataclasses import replace

import numpy as np
import peft
import pytest
import torch
import transformers as tf
from safetensors.torch import load_file
from test_modular import ettin as ettin
from tiny import PARITY

from rerank_cli.choices import LayerHeads
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError
from rerank_cli.models.adapters import LoraSettings
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts import profiles
from rerank_cli.models.trainable import TrainedPart, freeze_without_gradient
from rerank_cli.training.contract import DrawnGroup
from rerank_cli.training.export import ADAPTER_FOLDER, export
from rerank_cli.training.losses import LossSettings
from rerank_cli.training.optimizer import Optimizer, OptimizerSettings
from rerank_cli.training.setup import open_model
from rerank_cli.training.step import Trainer
from rerank_cli.training.tokens import Lengths

pytestmark = [
    pytest.mark.filterwarnings("ignore:.*is_gradient_checkpointing:FutureWarning"),
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]
WORDS = "the panda is a bear of china that eats bamboo and sleeps what where when 1908".split()  # noqa: SIM905
LORA = LoraSettings(4, 8.0, 0.0)
TOLERANCE = 1e-5


def groups(count=2, size=3, seed=1):
    rng = np.random.default_rng(seed)

    def text(most):
        return " ".join(rng.choice(WORDS, rng.integers(2, most)))

    return [DrawnGroup(n, text(8), tuple(text(60) for _ in range(size)), tuple(rng.random(size))) for n in range(count)]


def trained(folder, part, steps=3, family=None, lengths=None, rate=3e-3, **options):
    torch.manual_seed(3)
    chosen = ModelOptions(str(folder), device="cpu", family=family or FamilyOptions(), **options)
    opened = open_model(chosen, part, lengths or Lengths())
    freeze_without_gradient(opened.trainable, True)
    optimizer = Optimizer(opened.trainable.trained, OptimizerSettings())
    trainer = Trainer(opened.trainable, opened.tokenizer, LossSettings(), optimizer)
    for step in range(steps):
        trainer.run(step, rate, groups(seed=step), groups(seed=step))
    return opened, trainer


def logits(trainer, batch):
    """The scores of the trained model as it is, by its own rows: the last layer's, if there are several."""
    trainer.model.train(False)
    tokenized = trainer.tokenizer.tokenize(batch)
    with torch.no_grad():
        found = torch.cat([trainer.model.logits(row) for row in tokenized.rows])[torch.from_numpy(tokenized.places)]
    return found.numpy()


def scores(folder, batch, **family):
    options = ModelOptions(str(folder), device="cpu", dtype="fp32", family=FamilyOptions(**family))
    session = open_session(options)
    pairs = [(group.query, passage) for group in batch for passage in group.passages]
    queries, passages = zip(*pairs, strict=True)
    return session.score(session.prepare(PairTexts(queries, passages, [0] * len(pairs))))


FAMILIES = ("bert", "xlm-roberta", "gemma", "minicpm-layerwise", "gemma2-lightweight")


@pytest.mark.parametrize("name", FAMILIES)
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_a_written_model_scores_as_the_trained_one(name, lora, tmp_path):
    base = PARITY / name
    opened, trainer = trained(base, TrainedPart(lora, dropout=0.0))
    export(opened, tmp_path / "model")
    batch, layers = groups(seed=9), {}
    if name in {"minicpm-layerwise", "gemma2-lightweight"}:
        layers = {"cutoff_layers": (2, 3, 4, 5, 6)}
    expected = logits(trainer, batch)
    assert np.abs(scores(base, batch, **layers) - expected).max() > 100 * TOLERANCE  # it has learned
    assert np.abs(scores(tmp_path / "model", batch, **layers) - expected).max() <= TOLERANCE
    if lora is not None:
        adapter = tmp_path / "model" / ADAPTER_FOLDER
        beside = scores(base, batch, adapter=str(adapter), **layers)
        assert np.abs(beside - expected).max() <= TOLERANCE
        export(opened, tmp_path / "alone", merge=False)
        assert not (tmp_path / "alone" / "model.safetensors").exists()
        assert np.abs(scores(tmp_path / "alone", batch, **layers) - expected).max() <= TOLERANCE


@pytest.mark.parametrize("name", ["electra", "distilbert", "roberta", "modernbert-cls", "modernbert-mean", "gte",
                                  "deberta-v2", "mpnet"])  # fmt: skip
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_every_type_of_encoder_is_written_as_it_is_read(checkpoint, name, lora, tmp_path):
    if name == "mpnet" and lora is not None:
        lora = replace(LORA, targets=("q", "v"))
    opened, trainer = trained(checkpoint(name), TrainedPart(lora, dropout=0.0))
    export(opened, tmp_path)
    batch = groups(seed=9)
    expected = logits(trainer, batch)
    assert np.abs(scores(checkpoint(name), batch) - expected).max() > 100 * TOLERANCE
    assert np.abs(scores(tmp_path, batch) - expected).max() <= TOLERANCE
    before, after = (load_file(folder / "model.safetensors") for folder in (checkpoint(name), tmp_path))
    assert before.keys() == after.keys()
    assert json.loads((tmp_path / "config.json").read_text()) == json.loads(
        (checkpoint(name) / "config.json").read_text()
    )


@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_an_encoder_of_several_modules_is_written_with_them(ettin, lora, tmp_path_factory):
    base, written = ettin[0], tmp_path_factory.mktemp("written")
    opened, trainer = trained(base, TrainedPart(lora, dropout=0.0))
    export(opened, written)
    batch = groups(seed=9)
    expected = logits(trainer, batch)
    assert np.abs(scores(base, batch) - expected).max() > 100 * TOLERANCE
    assert np.abs(scores(written, batch) - expected).max() <= TOLERANCE
    before, after = (load_file(folder / "2_Dense" / "model.safetensors") for folder in (base, written))
    assert not torch.equal(before["linear.weight"], after["linear.weight"])


@pytest.mark.parametrize("name", ["llama", "qwen3", "gpt2", "gemma2"])
@pytest.mark.parametrize("lora", [None, LORA], ids=["full", "lora"])
def test_decoders_keep_the_profile_that_they_were_trained_with(decoder, name, lora, tmp_path):
    profile = replace(profiles.BGE, name="mine", prompt="Relevant?", yes="Yes", no="No", divide_by=2.0, max_length=300)
    opened, trainer = trained(decoder(name), TrainedPart(lora, dropout=0.0), family=FamilyOptions(profile=profile))
    export(opened, tmp_path)
    batch = groups(seed=9)
    expected = logits(trainer, batch)
    assert np.abs(scores(tmp_path, batch) - expected).max() <= TOLERANCE
    session = open_session(ModelOptions(str(tmp_path), device="cpu", dtype="fp32"))
    assert (session.facts.profile, session.facts.max_length, session.facts.profile_is_guess) == ("mine", 300, False)


def test_the_lengths_of_training_are_those_of_the_written_model(tmp_path):
    opened, _ = trained(PARITY / "bert", TrainedPart(dropout=0.0), max_length=96)
    assert opened.limits.max_length == 512  # lengths are given to the tokenizer of groups, not to the model
    opened, trainer = trained(PARITY / "bert", TrainedPart(dropout=0.0), lengths=Lengths(96))
    export(opened, tmp_path)
    session = open_session(ModelOptions(str(tmp_path), device="cpu"))
    assert session.facts.max_length == 96
    batch = [DrawnGroup(0, "what", ("panda " * 200, "panda " * 20))]
    assert np.abs(scores(tmp_path, batch) - logits(trainer, batch)).max() <= TOLERANCE


def test_an_instruction_of_training_is_written_for_an_encoder(tmp_path):
    family = FamilyOptions(query_instruction="find: ")
    opened, trainer = trained(PARITY / "bert", TrainedPart(dropout=0.0), family=family)
    export(opened, tmp_path)
    batch = groups(seed=9)
    assert np.abs(scores(tmp_path, batch) - logits(trainer, batch)).max() <= TOLERANCE


def test_an_adapter_is_refused_on_other_weights(tmp_path):
    opened, _ = trained(PARITY / "gemma", TrainedPart(LORA), steps=1)
    export(opened, tmp_path / "adapter", merge=False)
    other, _ = trained(PARITY / "gemma", TrainedPart(dropout=0.0), steps=1)
    export(other, tmp_path / "other")
    with pytest.raises(ModelError, match="trained on other weights"):
        scores(tmp_path / "other", groups(), adapter=str(tmp_path / "adapter"))


def test_peft_loads_the_adapter_of_a_decoder(tmp_path):
    opened, _ = trained(PARITY / "gemma", TrainedPart(LORA, dropout=0.0))
    export(opened, tmp_path)
    base = tf.AutoModelForCausalLM.from_pretrained(PARITY / "gemma", dtype=torch.float32)
    merged = peft.PeftModel.from_pretrained(base, tmp_path / ADAPTER_FOLDER).merge_and_unload()
    written = tf.AutoModelForCausalLM.from_pretrained(tmp_path, dtype=torch.float32)
    for (name, one), (_, other) in zip(merged.named_parameters(), written.named_parameters(), strict=True):
        assert torch.allclose(one, other, atol=1e-6), name


def test_heads_below_the_start_layer_are_left_as_they_were(tmp_path):
    opened, _ = trained(PARITY / "minicpm-layerwise", TrainedPart(dropout=0.0, layers=(5, 6)))
    export(opened, tmp_path)
    before, after = (load_file(folder / "model.safetensors") for folder in (PARITY / "minicpm-layerwise", tmp_path))
    assert before.keys() == after.keys()
    same = [
        number
        for number in range(5)
        if torch.equal(*(w[f"lm_head.{number}.linear_head.weight"] for w in (before, after)))
    ]
    assert same == [0, 1, 2]


def test_heads_of_a_lightweight_model_stay_those_of_their_layers(tmp_path):
    opened, trainer = trained(PARITY / "gemma2-lightweight", TrainedPart(dropout=0.0, layers=(4, 6)))
    export(opened, tmp_path)
    batch = groups(seed=9)
    found = scores(tmp_path, batch, cutoff_layers=(4, 6), layer_heads=LayerHeads.TRAINED)
    assert np.abs(found - logits(trainer, batch)).max() <= TOLERANCE


def test_the_adapter_of_a_lightweight_model_scores_by_the_head_of_the_layer(tmp_path):
    opened, trainer = trained(PARITY / "gemma2-lightweight", TrainedPart(LORA, dropout=0.0))
    export(opened, tmp_path / "merged")
    export(opened, tmp_path / "alone", merge=False)
    batch = groups(seed=9)
    expected = logits(trainer, batch)[:, -1]
    for folder in ("merged", f"merged/{ADAPTER_FOLDER}", "alone"):
        assert np.abs(scores(tmp_path / folder, batch) - expected).max() <= TOLERANCE, folder


def test_an_adapter_beside_the_merged_model_has_the_lengths_of_training(tmp_path):
    opened, _ = trained(PARITY / "gemma", TrainedPart(LORA, dropout=0.0), steps=1, lengths=Lengths(96))
    export(opened, tmp_path)
    session = open_session(ModelOptions(str(tmp_path / ADAPTER_FOLDER), device="cpu"))
    assert session.facts.max_length == 96


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bert", "xlm-roberta"])
def test_sentence_transformers_scores_the_written_model_the_same(name, tmp_path):
    cross_encoder = pytest.importorskip("sentence_transformers").CrossEncoder
    opened, trainer = trained(PARITY / name, TrainedPart(dropout=0.0))
    export(opened, tmp_path)
    batch = groups(seed=9)
    pairs = [(group.query, passage) for group in batch for passage in group.passages]
    model = cross_encoder(str(tmp_path), device="cpu")
    found = model.predict(pairs, activation_fn=torch.nn.Identity(), show_progress_bar=False)
    assert np.abs(found - logits(trainer, batch)).max() <= TOLERANCE
