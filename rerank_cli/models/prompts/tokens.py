"""Tokenizes texts with the checkpoint's own tokenizer, through the Rust library directly.

Texts are tokenized separately and without special tokens; the pair template comes from the tokenizer's post-processor.
Independent of batches, prompts and models.
"""

from __future__ import annotations

import logging
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer, normalizers

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import one_line, read_object
from rerank_cli.models.prompts.pairs import Ids, PairTemplate

log = logging.getLogger(__name__)

_MARGIN = 64
_OVERHEAD = 300  # bytes that a string, an array and their dictionary entry take in addition to their contents
_FILES = (
    "tokenizer.json", "vocab.txt", "vocab.json", "tokenizer.model", "sentencepiece.bpe.model", "sentencepiece.model",
    "spiece.model", "spm.model", "bpe.codes", "tiktoken.model", "tekken.json",
)  # fmt: skip
_FEWEST, _SAMPLE = 32, 20_000  # tokens, the first of a run, among which unknown ones are counted


class RecentIds:
    """A cache of recent texts' token ids within a budget of bytes: documents shared by queries are tokenized once.

    It has two generations. A text that is looked up moves to the young one; when that fills half of the budget, the old
    one is dropped.
    """

    def __init__(self, budget: int = 32 << 20) -> None:
        self._half = budget // 2
        self._young: dict[str, Ids] = {}
        self._old: dict[str, Ids] = {}
        self._size = 0

    def get(self, text: str) -> Ids | None:
        ids = self._young.get(text)
        if ids is None:
            ids = self._old.get(text)
            if ids is not None:
                self.put(text, ids)
        return ids

    def put(self, text: str, ids: Ids) -> None:
        """Keep the ids of a text that is not in the young generation."""
        size = len(text) + ids.nbytes + _OVERHEAD
        if size > self._half // 8:
            return
        if self._size + size > self._half:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[text] = ids
        self._size += size


class TextTokenizer:
    """A tokenizer and its own pair template, without prompts.

    `keeps_end` is whether it truncates texts at their beginning. `stock` is transformers' tokenizer, for its chat
    template, if it was loaded by transformers.
    """

    def __init__(self, tokenizer: Tokenizer, where: str, stock: Any = None) -> None:
        self.keeps_end = (tokenizer.truncation or {}).get("direction", "").lower() == "left"
        self.stock = stock
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._where = where
        self._recent = RecentIds()
        names = (getattr(tokenizer.model, "unk_token", None), "<unk>", "[UNK]")
        ids = (tokenizer.token_to_id(name) for name in names if name)
        self._unknown = next((number for number in ids if number is not None), None)
        self._seen = self._missed = 0

    def refuse_without_embeddings(self, rows: int) -> None:
        """Raise ModelError if the vocabulary has ids that an embedding matrix of `rows` rows does not have.

        An added token for padding may have none: it is often added for training, and is in no sequence here.
        """
        added = self._tokenizer.get_added_tokens_decoder().items()
        used = [number for number, token in added if "pad" not in token.content.lower()]
        last = max([self._tokenizer.get_vocab_size(with_added_tokens=False) - 1, *used])
        if last >= rows:
            what = f"the tokenizer has {last + 1:,} tokens, but the model has {rows:,} embeddings"
            raise ModelError(f"{self._where}: {what}. Fix: the tokenizer that the model was trained with")

    def pair_template(self) -> PairTemplate:
        """The special tokens around a pair, found by encoding one. Raises ModelError if there is no such template."""
        joined = self._tokenizer.encode("a", "a")
        sources, ids, types = joined.sequence_ids, joined.ids, joined.type_ids
        if 0 not in sources or 1 not in sources:
            raise ModelError(f"{self._where}: the tokenizer does not define how a pair is joined")
        q, p = sources.index(0), sources.index(1)
        parts = (slice(0, q), slice(q + sources.count(0), p), slice(p + sources.count(1), len(ids)))
        prefix, middle, suffix = (np.array(ids[part], dtype=np.int32) for part in parts)
        before, between, after = (tuple(types[part]) for part in parts)
        return PairTemplate(prefix, middle, suffix, types[q], types[p], (before, between, after))

    def around_text(self) -> tuple[Ids, Ids]:
        """The special tokens before and after a single text, found by encoding one."""
        joined = self._tokenizer.encode("a")
        first, last = joined.sequence_ids.index(0), len(joined.ids) - joined.sequence_ids[::-1].index(0)
        before, after = (np.array(part, dtype=np.int32) for part in (joined.ids[:first], joined.ids[last:]))
        return before, after

    def lower_case(self) -> None:
        """Lower-case texts before everything else."""
        before = self._tokenizer.normalizer
        steps = [normalizers.Lowercase(), *([before] if before else [])]
        self._tokenizer.normalizer = normalizers.Sequence(steps)

    def ids(self, text: str) -> Ids:
        """Ids of one text, without special tokens."""
        return np.array(self._tokenizer.encode(text, add_special_tokens=False).ids, dtype=np.int32)

    def text(self, ids: Ids) -> str:
        """The text of ids, special tokens included; bytes that are no whole character become U+FFFD."""
        found: str = self._tokenizer.decode(ids.tolist(), skip_special_tokens=False)
        return found

    def once(self, texts: Sequence[str]) -> list[Ids]:
        """Ids of each text like `encode`, of texts that will hardly come again."""
        found = self._tokenizer.encode_batch_fast(texts, add_special_tokens=False)
        return [np.array(encoding.ids, dtype=np.int32) for encoding in found]

    def offsets(self, text: str) -> npt.NDArray[np.int64]:
        """Character offsets (start, end) of each id of a text, [ids, 2]."""
        found = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary entry of each id."""
        return [self._tokenizer.id_to_token(number) or "" for number in ids]

    def token_id(self, token: str) -> int | None:
        """The id of a vocabulary entry."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encode(self, texts: Sequence[str], enough: int | None = None) -> list[Ids]:
        """Ids of each text, without special tokens; runs on the library's own threads.

        With `enough`, only the beginning of a very long text is tokenized, to more than `enough` ids. Ids of recent
        texts are cached: their arrays are shared and must not be written to.
        """
        if enough is not None:
            texts = [self._beginning(text, enough) for text in texts]
        ids = [self._recent.get(text) for text in texts]
        new = [place for place, known in enumerate(ids) if known is None]
        found = self._tokenizer.encode_batch_fast([texts[place] for place in new], add_special_tokens=False)
        for place, encoding in zip(new, found, strict=True):
            ids[place] = made = np.array(encoding.ids, dtype=np.int32)
            self._recent.put(texts[place], made)
            if self._seen < _SAMPLE:
                self._seen += len(made)
                self._missed += int(np.count_nonzero(made == self._unknown))
        if self._seen >= _FEWEST and self._missed > self._seen / 2:
            what = f"{self._missed:,} of the first {self._seen:,} tokens are unknown to the tokenizer"
            log.warning("%s: %s. Fix: the model's own tokenizer, or a model for these texts", self._where, what)
            self._seen, self._missed = _SAMPLE, 0  # said once
        return cast("list[Ids]", ids)

    def _beginning(self, text: str, enough: int) -> str:
        """A text's beginning of at least `enough` + `_MARGIN` ids, cut before a space if possible; short texts whole.

        The last ids of a beginning may differ from those of the whole text, but not the ids before the margin.
        """
        length = max(1 << 16, 64 * enough)  # in characters; nearly always sufficient
        if len(text) <= 2 * length:
            return text
        while length < len(text):
            cut = text[:length]
            cut = cut[: max(cut.rfind(" "), cut.rfind("\n"))] or cut
            if len(self._tokenizer.encode(cut, add_special_tokens=False).ids) >= enough + _MARGIN:
                return cut
            length *= 4
        return text


def load_tokenizer(folder: Path, stock: Mapping[str, Any] | None = None, *, lower_case: bool = False) -> TextTokenizer:
    """The tokenizer of a checkpoint folder: its `tokenizer.json`, or its older files as transformers converts them.

    With `stock`, arguments of transformers' AutoTokenizer, it is loaded as that loads it, as sentence-transformers
    does. `lower_case` makes it lower-case texts first. Raises ModelError if there is none, or it cannot be read.
    """
    if not any((folder / name).is_file() for name in _FILES):
        raise ModelError(f"no tokenizer in {folder} (expected tokenizer.json, or vocab.txt and the like)")
    path = folder / "tokenizer.json"
    if stock is not None or not path.is_file():
        slow = _by_transformers(folder, stock)
        tokenizer = TextTokenizer(slow.backend_tokenizer, str(folder), slow)
    else:
        try:
            tokenizer = TextTokenizer(Tokenizer.from_file(str(path)), str(path))
        except Exception as error:  # the Rust library raises bare Exception
            raise ModelError(f"{path}: not a readable tokenizer ({one_line(error)})") from error
    if lower_case:
        tokenizer.lower_case()
    return tokenizer


def _by_transformers(folder: Path, arguments: Mapping[str, Any] | None) -> Any:
    """The stock class; without arguments the one that tokenizer_config.json names, also for unknown model types."""
    import transformers

    stock: Any = transformers.AutoTokenizer
    if arguments is None:
        try:
            named = str(read_object(folder / "tokenizer_config.json").get("tokenizer_class") or "")
        except ModelError:
            named = ""
        found: Any = getattr(transformers, named, None)
        if isinstance(found, type) and issubclass(found, transformers.PreTrainedTokenizerBase):
            stock = found
    try:
        slow = stock.from_pretrained(str(folder), trust_remote_code=False, **(arguments or {}))
        if not slow.is_fast:
            raise ValueError(f"{type(slow).__name__} has no fast version")
        return slow
    except Exception as error:  # transformers and the Rust library have no common base class for unusable files
        raise ModelError(f"{folder}: the tokenizer cannot be loaded ({one_line(error)})") from error
