"""Texts to token ids with the checkpoint's own `tokenizer.json`, by the Rust library directly.

Texts are tokenized alone and without specials; the pair template is read from the tokenizer's post-processor. Knows
nothing of batches, of prompts or of models.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np
import numpy.typing as npt
import orjson
from tokenizers import Tokenizer

from rerank_cli.errors import ModelError
from rerank_cli.models.prompts.pairs import Ids, PairTemplate

_MARGIN = 64
_OVERHEAD = 300  # bytes that a string, an array and their place in a dictionary take beside what they hold


def _beginning(enough: int) -> int:
    """Characters that nearly always have so many tokens, and to spare."""
    return max(1 << 16, 64 * enough)


class RecentIds:
    """Ids of texts met lately, within about so many bytes: documents that many queries share are tokenized once.

    Two generations: what is asked for moves to the younger one, and when that is half of the budget, the older is
    dropped.
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
        """Keep the ids of a text that is not among the young ones."""
        size = len(text) + ids.nbytes + _OVERHEAD
        if size > self._half // 8:
            return
        if self._size + size > self._half:
            self._old, self._young, self._size = self._young, {}, 0
        self._young[text] = ids
        self._size += size


class TextTokenizer:
    """A tokenizer, by itself: knows the template that joins two of its texts, but nothing of prompts."""

    def __init__(self, tokenizer: Tokenizer, where: str) -> None:
        tokenizer.no_truncation()
        tokenizer.no_padding()
        self._tokenizer = tokenizer
        self._where = where
        self._recent = RecentIds()

    def pair_template(self) -> PairTemplate:
        """The tokenizer's own specials around a pair; ModelError where it has no way to join one."""
        return read_template(self._tokenizer, self._where)

    def ids(self, text: str) -> Ids:
        """Ids of one text, without specials."""
        return self.encode([text])[0]

    def offsets(self, text: str) -> npt.NDArray[np.int64]:
        """Characters (start, end) of each id of a text, [ids, 2]."""
        found = self._tokenizer.encode(text, add_special_tokens=False).offsets
        return np.array(found, dtype=np.int64).reshape(-1, 2)

    def tokens(self, ids: Sequence[int]) -> list[str]:
        """The vocabulary's entry of each id."""
        return [self._tokenizer.id_to_token(number) or "" for number in ids]

    def token_id(self, token: str) -> int | None:
        """The id of one entry of the vocabulary."""
        found: int | None = self._tokenizer.token_to_id(token)
        return found

    def encode(self, texts: Sequence[str], enough: int | None = None) -> list[Ids]:
        """Ids of each text, without specials; runs on the library's own threads.

        Of a very long text only the beginning is looked at: more than its first `enough` ids, if that is given. Texts
        that were met lately are not tokenized again; their arrays are shared and not to be written to.
        """
        if enough is not None:
            texts = [text if len(text) <= 2 * _beginning(enough) else self._cut(text, enough) for text in texts]
        ids = [self._recent.get(text) for text in texts]
        new = [place for place, known in enumerate(ids) if known is None]
        found = self._tokenizer.encode_batch_fast([texts[place] for place in new], add_special_tokens=False)
        for place, encoding in zip(new, found, strict=True):
            ids[place] = made = np.array(encoding.ids, dtype=np.int32)
            self._recent.put(texts[place], made)
        return cast("list[Ids]", ids)

    def _cut(self, text: str, enough: int) -> str:
        """The shortest beginning tried that has ids to spare; it ends before a space where there is one.

        The last ids of a beginning may differ from those of the whole text, those before the margin do not.
        """
        length = _beginning(enough)
        while length < len(text):
            cut = text[:length]
            cut = cut[: max(cut.rfind(" "), cut.rfind("\n"))] or cut
            if len(self._tokenizer.encode(cut, add_special_tokens=False).ids) >= enough + _MARGIN:
                return cut
            length *= 4
        return text


def load_tokenizer(folder: Path) -> TextTokenizer:
    """The tokenizer of a checkpoint folder; one without `tokenizer.json` is converted by transformers, once."""
    path = folder / "tokenizer.json"
    if not path.is_file():
        return TextTokenizer(_converted(folder), str(folder))
    try:
        return TextTokenizer(Tokenizer.from_file(str(path)), str(path))
    except ModelError:
        raise
    except Exception as error:  # the Rust library raises bare Exception
        raise ModelError(f"{path}: not a readable tokenizer ({_one_line(error)})") from error


def _converted(folder: Path) -> Tokenizer:
    from transformers import AutoTokenizer

    try:
        slow = _tokenizer_class(folder, AutoTokenizer).from_pretrained(str(folder), trust_remote_code=False)
        return cast("Tokenizer", slow.backend_tokenizer)
    except (OSError, ValueError, ImportError, AttributeError) as error:
        raise ModelError(f"{folder}: no tokenizer.json, and none could be made ({_one_line(error)})") from error


def _tokenizer_class(folder: Path, otherwise: Any) -> Any:
    """The stock class that tokenizer_config.json names: model types that transformers lacks have one too."""
    import transformers

    try:
        said = orjson.loads((folder / "tokenizer_config.json").read_bytes())
    except (FileNotFoundError, orjson.JSONDecodeError):
        return otherwise
    name = str(said.get("tokenizer_class") or "") if isinstance(said, dict) else ""
    found = getattr(transformers, name, None)
    return found if isinstance(found, type) and issubclass(found, transformers.PreTrainedTokenizerBase) else otherwise


def read_template(tokenizer: Tokenizer, where: str) -> PairTemplate:
    """Find the specials around a pair by encoding one and looking where its two texts end up."""
    joined = tokenizer.encode("a", "a")
    sources, ids, types = joined.sequence_ids, joined.ids, joined.type_ids
    if 0 not in sources or 1 not in sources:
        raise ModelError(f"{where}: the tokenizer does not say how a pair is joined")
    q, p = sources.index(0), sources.index(1)
    parts = (slice(0, q), slice(q + sources.count(0), p), slice(p + sources.count(1), len(ids)))
    prefix, middle, suffix = (np.array(ids[part], dtype=np.int32) for part in parts)
    before, between, after = (tuple(types[part]) for part in parts)
    return PairTemplate(prefix, middle, suffix, types[q], types[p], (before, between, after))


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split())[:200]
