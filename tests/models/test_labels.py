"""Classifiers with several labels against stock models: log-odds of one label, whose sigmoid is its softmax."""

import json
import shutil

import numpy as np
import pytest
import torch
import transformers as tf
from hard import PAIRS, expect, scored
from tiny import PARITY, SENTENCEPIECE, SMALL, WORDPIECE, configs

from rerank_cli import Reranker
from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.reading.labels import labels_of
from rerank_cli.models.trainable import TrainedPart
from rerank_cli.training.setup import open_model
from rerank_cli.training.tokens import Lengths

NLI = ("contradiction", "neutral", "entailment")
FEW = PAIRS[::7]
SIZES = {name: value for name, value in SMALL.items() if name != "num_labels"} | {"initializer_range": 0.1}


def made(folder, config, tokenizer, names, **changes):
    """A tiny random classifier with labels of these names, None for those that transformers gives."""
    torch.manual_seed(4)
    config.num_labels = len(names)
    if names[0] is not None:
        config.id2label = dict(enumerate(names))
        config.label2id = {name: number for number, name in enumerate(names)}
    model = tf.AutoModelForSequenceClassification.from_config(config).eval()
    for weight in model.requires_grad_(False).parameters():
        if weight.dim() == 1:  # biases are zero at first
            torch.nn.init.normal_(weight, weight.mean().item(), 0.1)
    model.save_pretrained(folder)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        shutil.copy(PARITY / tokenizer / file, folder)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))
    return folder


def bert(folder, names, **changes):
    return made(folder, tf.BertConfig(**SIZES, **WORDPIECE), "bert", names, **changes)


KINDS = {
    "bert": lambda: (tf.BertConfig(**SIZES, **WORDPIECE), "bert"),
    "xlm-roberta": lambda: (tf.XLMRobertaConfig(**SIZES, **SENTENCEPIECE), "xlm-roberta"),
    "deberta-v2": lambda: (configs()["deberta-v2"][0], "bert"),
}


def reference(folder, pairs):
    """Ids by transformers' tokenizer, and the stock model's logits [n, labels] for one pair after the other."""
    tokenizer = tf.PreTrainedTokenizerFast.from_pretrained(folder)
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    ids, logits = [], []
    for query, passage in pairs:
        read = tokenizer([query], [passage], truncation="only_second", max_length=512, return_tensors="pt",
                         return_token_type_ids=model.config.type_vocab_size > 1)  # fmt: skip
        ids.append(read["input_ids"][0].tolist())
        with torch.inference_mode():
            logits.append(model(**read).logits[0].double().numpy())
    return ids, np.stack(logits)


def shares_of(logits):
    """The softmax of each row."""
    powers = np.exp(logits)
    return powers / powers.sum(axis=1, keepdims=True)


def log_odds(share):
    return np.log(share / (1 - share))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("names", [(None, None), ("irrelevant", "relevant"), NLI], ids=["unnamed", "two", "three"])
def test_the_score_is_the_log_odds_of_the_relevant_label(tmp_path, kind, names):
    folder = made(tmp_path / "model", *KINDS[kind](), names)
    ids, logits = reference(folder, PAIRS)
    right = shares_of(logits)[:, -1]
    found = scored(folder)
    assert found.session.facts.packed == (kind != "deberta-v2")
    expect(found, ids, log_odds(right))
    sigmoid = 1 / (1 + np.exp(-found.scores.astype(np.float64)))
    assert np.abs(sigmoid - right).max() <= 1e-6


def test_of_two_labels_the_order_is_that_of_the_second_ones_log_softmax(tmp_path):
    """pygaggle and nboost rank by the log-softmax, or the softmax, of the second label."""
    folder = bert(tmp_path / "model", (None, None))
    _, logits = reference(folder, PAIRS)
    found = scored(folder).scores.astype(np.float64)
    assert np.abs(-np.log1p(np.exp(-found)) - np.log(shares_of(logits)[:, 1])).max() <= 1e-5


@pytest.mark.parametrize(("asked", "index"), [("contradiction", 0), ("Neutral", 1), ("2", 2), ("0", 0)])
def test_a_label_by_name_or_index(tmp_path, asked, index):
    folder = bert(tmp_path / "model", NLI)
    _, logits = reference(folder, FEW)
    found = scored(folder, FEW, label=asked)
    assert np.abs(found.scores - log_odds(shares_of(logits)[:, index])).max() <= 1e-5


def test_labels_with_a_probability_each_keep_their_logits(tmp_path):
    folder = bert(tmp_path / "model", NLI, problem_type="multi_label_classification")
    _, logits = reference(folder, FEW)
    assert np.abs(scored(folder, FEW).scores - logits[:, 2]).max() <= 1e-5


@pytest.mark.parametrize("names", [(None, None), NLI], ids=["two", "three"])
def test_a_causal_classifier_with_several_labels(tmp_path, names):
    sizes = SIZES | {"vocab_size": 2260, "max_position_embeddings": 2048, "num_key_value_heads": 2}
    config = tf.Qwen2Config(**sizes, bos_token_id=2, eos_token_id=1, pad_token_id=0)
    folder = made(tmp_path / "model", config, "gemma", names)
    model = tf.AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    found = scored(folder, FEW)
    with torch.inference_mode():
        logits = torch.cat([model(input_ids=torch.tensor([ids])).logits for ids in found.ids]).double()
    expect(found, found.ids, log_odds(shares_of(logits.numpy())[:, -1]), FEW)


def opened(folder, **family):
    return open_tokenizer(ModelOptions(str(folder), family=FamilyOptions(**family)))


def test_a_guess_is_said_and_a_name_is_not(tmp_path):
    guessed = opened(bert(tmp_path / "two", (None, None)))
    assert guessed.reading.label.name == "LABEL_1"
    assert guessed.sources["label"] == "guess"
    assert any("LABEL_1 is taken (--label)" in remark for remark in guessed.remarks)
    named = opened(bert(tmp_path / "named", ("entailment", "not_entailment")))
    assert (named.reading.label.index, named.sources["label"]) == (0, "file config.json")
    assert not any("label" in remark for remark in named.remarks)
    asked = opened(tmp_path / "two", label="0")
    assert (asked.reading.label.index, asked.sources["label"]) == (0, "flag")
    assert not any("label" in remark for remark in asked.remarks)
    assert "label" in asked.reading.options


def test_a_config_without_labels_has_two_as_in_transformers(tmp_path):
    folder = bert(tmp_path / "model", (None, None))
    path = folder / "config.json"
    config = json.loads(path.read_text())
    path.write_text(json.dumps({name: value for name, value in config.items() if "label" not in name}))
    assert opened(folder).reading.label.name == "LABEL_1"
    assert np.isfinite(scored(folder, FEW).scores).all()


def refuse(error, pattern, call, *args, **kwargs):
    with pytest.raises(error, match=pattern) as caught:
        call(*args, **kwargs)
    assert "\n" not in str(caught.value)


def test_labels_that_do_not_say_which_is_the_score_are_asked_for(tmp_path):
    folder = bert(tmp_path / "model", ("sad", "happy", "angry"))
    refuse(UsageError, r"3 labels \(sad, happy, angry\).*Fix: --label", opened, folder)
    refuse(UsageError, r"no such label \(expected sad, happy, angry, or an index\)", opened, folder, label="yes")
    refuse(UsageError, "no such label", opened, folder, label="3")
    refuse(UsageError, "no such label", opened, folder, label="-1")


def test_one_label_has_no_choice(checkpoint):
    refuse(UsageError, "--label: .* has no such option", opened, checkpoint("bert"), label="0")


def test_other_families_have_no_labels(decoder):
    refuse(UsageError, "--label: .*decoder.* has no such option", opened, decoder("llama"), label="0")


def test_several_regressions_are_refused(tmp_path):
    folder = bert(tmp_path / "model", NLI, problem_type="regression")
    refuse(ModelError, "a regression with 3 outputs", opened, folder)


@pytest.mark.parametrize(
    ("changes", "message"),
    [({"id2label": ["a", "b"]}, "not a table"), ({"id2label": {"0": "a", "2": "b"}}, r"labels \[0, 2\]"),
     ({"id2label": None, "num_labels": 0}, "num_labels cannot be 0")],
)  # fmt: skip
def test_labels_that_cannot_be_numbered_are_refused(altered, changes, message):
    refuse(ModelError, message, opened, altered(**changes))


def test_training_is_refused_in_one_line(tmp_path):
    folder = bert(tmp_path / "model", (None, None))
    options = ModelOptions(str(folder), device="cpu")
    refuse(ModelError, "scored but not trained. Fix: --model", open_model, options, TrainedPart(), Lengths())


def test_a_label_from_python(tmp_path):
    folder = bert(tmp_path / "model", NLI)
    by_name, by_index = (Reranker(folder, device="cpu", label=label) for label in ("neutral", 1))
    with by_name, by_index:
        assert by_name.score(PAIRS[:4]).tolist() == by_index.score(PAIRS[:4]).tolist()


def test_names_win_over_numbers(altered):
    folder = altered(id2label={"0": "1", "1": "0"})
    assert labels_of(opened(folder).checkpoint) == ("1", "0")
    assert opened(folder, label="1").reading.label.index == 0


def test_weights_with_another_number_of_labels_are_one_line(tmp_path):
    folder = bert(tmp_path / "model", (None, None), id2label={"0": "a", "1": "b", "2": "yes"})
    refuse(ModelError, "cannot be loaded|size", open_session, ModelOptions(str(folder), device="cpu"))
