import re

import pytest
import transformers as tf
from huggingface_hub.errors import HfHubHTTPError

from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError, UsageError


def refuse(name, pattern, error=ModelError, **options):
    with pytest.raises(error) as caught:
        open_session(ModelOptions(str(name), device="cpu", **options))
    message = str(caught.value)
    assert "\n" not in message
    assert re.search(pattern, message)


def test_several_labels(altered):
    refuse(altered(id2label={"0": "a", "1": "b", "2": "c"}), "3 labels, expected a reranker with one")


def test_a_bi_encoder(altered):
    refuse(altered(architectures=["BertModel"]), "not a reranker .*BertModel")


def test_a_checkpoint_that_wants_its_own_code_run(altered):
    changes = {"model_type": "new", "auto_map": {"AutoModel": "modeling.py--NewModel"}}
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
