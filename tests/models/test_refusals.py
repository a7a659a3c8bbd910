import json
import os
import re
import shutil
from pathlib import Path

import pytest
import torch
import transformers as tf
from huggingface_hub.errors import HfHubHTTPError
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from tiny import PARITY

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.options import FamilyOptions


def refuse(name, pattern, error=ModelError, **options):
    with pytest.raises(error) as caught:
        open_session(ModelOptions(str(name), device="cpu", **options))
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(pattern, message)


def test_a_bi_encoder(altered):
    refuse(altered(architectures=["BertModel"]), "not a reranker .*BertModel")


def test_a_checkpoint_that_wants_its_own_code_run(altered):
    changes = {"model_type": "jina_bert", "auto_map": {"AutoModel": "modeling.py--NewModel"}}
    refuse(altered(**changes), "needs code from the checkpoint, which is never run")


def test_code_in_the_folder_is_never_imported(altered, tmp_path):
    folder = altered(auto_map={"AutoModelForSequenceClassification": "evil.Evil", "AutoConfig": "evil.Evil"})
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\nclass Evil: pass\n")
    open_session(ModelOptions(str(folder), device="cpu"))
    assert not (tmp_path / "ran").exists()


def test_an_unknown_model_type(altered):
    refuse(altered(model_type="nonsense"), "'nonsense' is not one that transformers can load")


def test_weights_without_a_head(altered):
    folder = altered()
    tf.BertModel.from_pretrained(folder).save_pretrained(folder / "bare")
    (folder / "bare" / "model.safetensors").replace(folder / "model.safetensors")
    refuse(folder, "weights lack 2 tensors .*classifier")


def test_a_torn_weight_file(altered):
    folder = altered()
    weights = folder / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-100])
    refuse(folder, "the weights cannot be loaded")


def test_no_weights(altered):
    folder = altered()
    (folder / "model.safetensors").unlink()
    refuse(folder, "the weights cannot be loaded")


def test_a_broken_tokenizer(altered):
    folder = altered()
    (folder / "tokenizer.json").write_text("{}")
    refuse(folder, "not a readable tokenizer")


def test_a_broken_configuration(altered):
    folder = altered()
    (folder / "config.json").write_text("{")
    refuse(folder, "unreadable configuration")


@pytest.mark.parametrize(
    ("name", "value", "what"),
    [
        ("hidden_size", "big", 'got "big", expected int'),
        ("num_hidden_layers", 1.5, "got 1.5, expected int"),
        ("max_position_embeddings", None, "got null, expected int"),
        ("pad_token_id", "x", 'got "x", expected int or null'),
        ("layer_norm_eps", "x", 'got "x", expected float'),
    ],
)
def test_a_value_in_the_configuration_that_is_of_another_type(altered, name, value, what):
    folder = altered(**{name: value})
    refuse(folder, f"^{re.escape(f'{folder}: config.json: unusable {name} ({what})')}$")


@pytest.mark.parametrize("family", ["bert", "xlm-roberta", "deberta-v2", "electra"])
@pytest.mark.parametrize("count", [2, 0, -1])
def test_fewer_layers_in_the_configuration_than_in_the_weights(altered, family, count):
    folder = altered(of=family, num_hidden_layers=count)
    refuse(folder, rf"weights have a layer \d \(.*\), config.json states num_hidden_layers {count}")


@pytest.mark.parametrize("name", ["minicpm-layerwise", "gemma2-lightweight"])
def test_layers_above_the_cutoff_are_not_those_that_the_configuration_lacks(name, tmp_path):
    def opened(folder, layers):
        options = ModelOptions(str(folder), device="cpu", family=FamilyOptions(cutoff_layers=layers))
        return open_session(options)

    assert opened(PARITY / name, (2,)).facts.family
    folder = shutil.copytree(PARITY / name, tmp_path / name)
    config = json.loads((folder / "config.json").read_text()) | {"num_hidden_layers": 4}
    (folder / "config.json").write_text(json.dumps(config))
    with pytest.raises(ModelError, match=r"weights have a layer \d \(.*\), config.json states num_hidden_layers 4"):
        opened(folder, (4,))


def test_a_folder_without_configuration(tmp_path):
    refuse(tmp_path, "no config.json")


def test_a_folder_that_is_not_there(tmp_path):
    refuse(tmp_path / "nothing", "no such model folder")


def test_more_length_than_the_model_has_positions(checkpoint):
    refuse(checkpoint("bert"), "this model has 512 positions", UsageError, max_length=513)
    refuse(checkpoint("xlm-roberta"), "this model has 512 positions", UsageError, max_length=513)


def test_a_length_too_short_for_a_pair(checkpoint):
    refuse(checkpoint("bert"), "too short for a pair", UsageError, max_length=4)


def test_a_device_that_is_not_there(checkpoint):
    with pytest.raises(UsageError, match="expected auto, cpu, cuda"):
        open_session(ModelOptions(str(checkpoint("bert")), device="tpu"))


def test_a_revision_of_a_folder(checkpoint):
    refuse(checkpoint("bert"), "a folder has no revisions", revision="main")


def test_a_download_that_breaks_off(monkeypatch):
    def torn(*_, **__):
        raise HfHubHTTPError.__mro__[1]("read timed out")

    monkeypatch.setattr("huggingface_hub.snapshot_download", torn)
    refuse("somebody/model", r"somebody/model: download failed \(read timed out\)")


def test_a_folder_without_a_tokenizer(altered):
    folder = altered()
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (folder / file).unlink()
    refuse(folder, f"^no tokenizer in {re.escape(str(folder))} ")


def test_a_vocabulary_larger_than_the_embeddings(altered):
    folder = altered()
    vocabulary = json.loads((folder / "tokenizer.json").read_text())
    count = len(vocabulary["model"]["vocab"])
    for number in range(count, 2001):
        vocabulary["model"]["vocab"][f"word{number}"] = number
    (folder / "tokenizer.json").write_text(json.dumps(vocabulary))
    refuse(folder, "the tokenizer has 2,001 tokens, but the model has 2,000 embeddings")


@pytest.mark.parametrize(("token", "fits"), [("[NEW]", False), ("<|pad|>", True)])
def test_an_added_token_without_an_embedding_may_only_be_for_padding(altered, token, fits):
    folder = altered()
    tokenizer = json.loads((folder / "tokenizer.json").read_text())
    added = {"id": 2000, "content": token, "single_word": False, "lstrip": False, "rstrip": False}
    tokenizer["added_tokens"].append(added | {"normalized": False, "special": True})
    vocabulary = tokenizer["model"]["vocab"]
    for number in range(len(vocabulary), 2000):
        vocabulary[f"word{number}"] = number
    (folder / "tokenizer.json").write_text(json.dumps(tokenizer))
    if fits:
        open_session(ModelOptions(str(folder), device="cpu"))
    else:
        refuse(folder, "the tokenizer has 2,001 tokens, but the model has 2,000 embeddings")


def test_texts_that_are_unknown_to_the_tokenizer_are_told_once(checkpoint, caplog):
    session = open_session(ModelOptions(str(checkpoint("bert")), device="cpu"))
    session.prepare(PairTexts(["what is panda?"], ["The giant panda is a bear. " * 9], [0]))
    assert not caplog.records
    for _ in range(2):
        session.prepare(PairTexts(["ሰላም ዓለም"], ["ⵜⴰⵎⴰⵣⵉⵖⵜ ⴷ ⵜⵓⵜⵍⴰⵢⵜ " * 90], [0]))
    (record,) = caplog.records
    assert re.search(r"\d+ of the first \d+ tokens are unknown to the tokenizer\. Fix: ", record.getMessage())


def indexed(folder, file):
    """The folder with an index of weights that names this file for every tensor."""
    with safe_open(folder / "model.safetensors", "pt") as weights:
        names = dict.fromkeys(weights.keys(), file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": names}))
    return folder


@pytest.mark.parametrize("way", ["../other/model.safetensors", "part/../../other/model.safetensors", "/etc/passwd"])
def test_an_index_that_names_a_file_outside_its_folder(altered, tmp_path, way):
    folder = indexed(altered(), way)
    (tmp_path / "other").mkdir()
    (folder / "model.safetensors").replace(tmp_path / "other" / "model.safetensors")
    refuse(folder, f"names a file outside the model's folder \\({re.escape(way)}\\), which is never read")


def test_an_index_of_weights_that_are_links_into_the_cache_of_the_hub(altered, tmp_path):
    folder = indexed(altered(), "model-00001-of-00001.safetensors")
    (tmp_path / "blobs").mkdir()
    (folder / "model.safetensors").replace(tmp_path / "blobs" / "abc")
    (folder / "model-00001-of-00001.safetensors").symlink_to("../blobs/abc")
    open_session(ModelOptions(str(folder), device="cpu"))


def test_an_index_that_is_none(altered):
    folder = altered()
    (folder / "model.safetensors.index.json").write_text('{"weights": {}}')
    refuse(folder, "not an index of weights")


MADE = Path("/tmp/must-not-be-made")


class Evil:
    def __reduce__(self):
        return os.mkdir, (str(MADE),)


@pytest.mark.parametrize("content", [{"weights": Evil()}, Evil()], ids=["in weights", "alone"])
def test_pickled_code_is_refused_in_our_words(altered, content):
    folder = altered()
    (folder / "model.safetensors").unlink()
    torch.save(content, folder / "pytorch_model.bin")
    refuse(folder, r"cannot be loaded \(a pickled file with code, posix.mkdir, which is never run\)\. Fix: weights in")
    assert not MADE.exists()


def test_pickled_weights_that_are_damaged(altered):
    folder = altered()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"\x80\x04 not a model")
    refuse(folder, "the weights cannot be loaded")


def test_pickled_tensors_are_read(altered):
    folder = altered()
    torch.save(load_file(folder / "model.safetensors"), folder / "pytorch_model.bin")
    (folder / "model.safetensors").unlink()
    open_session(ModelOptions(str(folder), device="cpu"))


@pytest.mark.parametrize("value", [float("nan"), float("inf")])
def test_weights_that_are_not_finite_are_named(altered, value):
    folder = altered()
    weights = load_file(folder / "model.safetensors")
    name = "bert.encoder.layer.1.output.dense.weight"
    weights[name][3, 5:7] = value
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    refuse(folder, f"{re.escape(name)} holds 2 values that are NaN or infinite, of 4,608")


def test_weights_whose_sum_overflows_are_finite(altered):
    folder = altered()
    weights = load_file(folder / "model.safetensors")
    weights["bert.encoder.layer.1.output.dense.weight"][:] = 1e38
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    open_session(ModelOptions(str(folder), device="cpu"))
