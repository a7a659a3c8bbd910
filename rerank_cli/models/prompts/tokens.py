"""Tokenizes texts with the checkpoint's own `tokenizer.json`, through the Rust library directly.

Texts are tokenized separately and without special tokens; the pair template comes from the tokenizer's post-processor.
Independent of batches, prompts and models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
from tokenizers import Tokenizer

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import one_line, read_object
from rerank_cli.models.prompts.pairs import Ids, PairTemplate

_MARGIN = 64
_OVERHEAD = 300  # bytes that a string, an array and their dictionary entry take in addition to their contents


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
    """A tokenizer and its own pair template, without prompts."""

    def __init__(self, tokenizer: Tokenizer, where: str) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._where = where
        self._recent = RecentIds()

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

    def ids(self, text: str) -> Ids:
        """Ids of one text, without special tokens."""
        return self.encode([text])[0]

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


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a checkpoint folder; if it has no `tokenizer.json`, transformers converts its older files."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return TextTokenizer(_converted(folder), str(folder))
    try:
        return TextTokenizer(Tokenizer.from_file(str(path)), str(path))
    except Exception as error:  # the Rust library raises bare Exception
        raise ModelError(f"{path}: not a readable tokenizer ({one_line(error)})") from error


def _converted(folder: Path) -> Tokenizer:
    """Converted by the stock class that tokenizer_config.json names, also for model types that transformers lacks."""
    import transformers

    try:
        named = str(read_object(folder / "tokenizer_config.json").get("tokenizer_class") or "")
    except ModelError:
        named = ""
    stock: Any = getattr(transformers, named, None)
    if not (isinstance(stock, type) and issubclass(stock, transformers.PreTrainedTokenizerBase)):
        stock = transformers.AutoTokenizer
    try:
        slow = stock.from_pretrained(str(folder), trust_remote_code=False)
        return cast("Tokenizer", slow.backend_tokenizer)
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ModelError(f"{folder}: no tokenizer.json, and it could not be created ({one_line(error)})") from error
