"""A scorer without weights: a pair's logit is a function of its ids, so that mix-ups show."""

import numpy as np
import torch
from tokenizers import Tokenizer, models, pre_tokenizers, processors

from rerank_cli.engine.rows.prepare import PairTokenizer
from rerank_cli.engine.rows.windows import PassageRule
from rerank_cli.models.prompts.pairs import PairRule
from rerank_cli.models.prompts.tokens import TextTokenizer


def tokenizer():
    vocabulary = {"[UNK]": 0, "[CLS]": 1, "[SEP]": 2} | {f"w{i}": 3 + i for i in range(500)} | {"a": 503}
    made = Tokenizer(models.WordLevel(vocabulary, unk_token="[UNK]"))
    made.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    made.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]", pair="[CLS] $A [SEP] $B:1 [SEP]:1", special_tokens=[("[CLS]", 1), ("[SEP]", 2)]
    )
    return TextTokenizer(made, "fake")


def reader(limits, cutting=None):
    """Reads pairs with the tokenizer's own template."""
    made = tokenizer()
    return PairTokenizer(made, PairRule(made.pair_template()), limits, cutting or PassageRule())


class FakeModel:
    """Logit: ids weighted by their place, summed; out of memory above `capacity` tokens; NaN where an id says so."""

    parameters = 0
    layers = ()
    max_positions = 512

    def __init__(self, capacity=None, nan_id=None, packed=True):
        self.capacity, self.nan_id, self.packed = capacity, nan_id, packed
        self.sizes = []

    def computed(self, row):
        return row.tokens if self.packed else int(row.sequence_lengths.max()) * row.sequences

    def score(self, row):
        if self.capacity is not None and row.tokens > self.capacity:
            raise torch.OutOfMemoryError("fake")
        self.sizes.append(row.tokens)
        logits = []
        for start, length in zip(row.starts, row.lengths, strict=True):
            ids = row.ids[start : start + length]
            logits.append(np.nan if self.nan_id in ids else logit(ids))
        return torch.tensor(logits, dtype=torch.float32)


def logit(ids):
    return float((ids * np.arange(1, len(ids) + 1)).sum() % 1009)
