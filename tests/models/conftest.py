"""Tiny checkpoints with random weights, one a family, written as any checkpoint on disk."""

import json
import shutil

import pytest
import torch
import transformers as tf
from tiny import PARITY, configs, decoders


@pytest.fixture(scope="session")
def checkpoint(tmp_path_factory):
    """A function: name of a family to the folder of its tiny checkpoint."""
    made = {}

    def make(name):
        if name not in made:
            config, tokenizer = configs()[name]
            torch.manual_seed(1)
            folder = tmp_path_factory.mktemp(name)
            tf.AutoModelForSequenceClassification.from_config(config).eval().save_pretrained(folder)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(PARITY / tokenizer / file, folder)
            made[name] = folder
        return made[name]

    return make


@pytest.fixture(scope="session")
def decoder(tmp_path_factory):
    """A function: name of a causal model to the folder of its tiny checkpoint."""
    made = {}

    def make(name):
        if name not in made:
            torch.manual_seed(1)
            folder = tmp_path_factory.mktemp(name)
            model = tf.AutoModelForCausalLM.from_config(decoders()[name]).eval()
            for weight in model.requires_grad_(False).parameters():
                if weight.dim() == 1:  # norms and biases are all alike at first
                    torch.nn.init.normal_(weight, weight.mean().item(), 0.1)
            model.save_pretrained(folder)
            for file in ("tokenizer.json", "tokenizer_config.json"):
                shutil.copy(PARITY / "gemma" / file, folder)
            made[name] = folder
        return made[name]

    return make


@pytest.fixture
def altered(checkpoint, tmp_path):
    """A function: a copy of the tiny BERT, or `of` another, with changes to its config.json."""

    def alter(of="bert", **changes):
        folder = tmp_path / "altered"
        shutil.copytree(checkpoint(of), folder)
        config = json.loads((folder / "config.json").read_text()) | changes
        (folder / "config.json").write_text(json.dumps(config))
        return folder

    return alter
