"""BM25 over texts: the best documents of each query, by the library bm25s. Needs the extra `bm25`.

Scores are those of Lucene's variant. Words are maximal runs of letters, digits and marks, in lower case, without the
stop words of the language and reduced to their stems by Snowball. Equal scores keep the order of the corpus, so the
same texts give the same ranking.
"""

from __future__ import annotations

import re
from array import array
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rerank_cli.choices import Bm25Language
from rerank_cli.errors import InputError, UsageError
from rerank_cli.formats.options import Bm25

# Marks belong to words: of Latin letters, and the vowel signs of the scripts of India; \w has only letters and digits.
_WORD = r"[\w\u0300-\u036f\u0900-\u0963\u0966-\u0dff]+"
# Scripts without spaces between words: Thai, Lao, Burmese, Khmer; kana; Chinese characters.
_UNSPACED = re.compile(
    r"[\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u4dbf\u4e00-\u9fff\uf900-\ufaff\U00020000-\U0003ffff]"
)
_LETTER = re.compile(r"[^\W\d_]")
_WITH_STOP_WORDS = frozenset(Bm25Language) - {
    Bm25Language.NONE, Bm25Language.ARABIC, Bm25Language.FINNISH, Bm25Language.HUNGARIAN, Bm25Language.INDONESIAN,
    Bm25Language.ROMANIAN,
}  # fmt: skip


class Bm25Index:
    """An index of texts in memory; `name` is that of the corpus.

    Raises UsageError if bm25s is not installed, InputError for texts without a word.
    """

    def __init__(self, texts: Iterable[str], options: Bm25, name: str) -> None:
        try:
            import bm25s
            from bm25s.tokenization import Tokenizer
            from Stemmer import Stemmer
        except ImportError as error:
            raise UsageError("--first-stage bm25 needs bm25s. Fix: pip install 'rerank-cli[bm25]'") from error
        language = options.language
        self._tokenizer: Any = Tokenizer(
            splitter=_WORD,
            stopwords=language.value if language in _WITH_STOP_WORDS else None,
            stemmer=None if language is Bm25Language.NONE else Stemmer(language.value),
        )
        tokens = [array("i", found) for found in self._tokenizer.streaming_tokenize(texts, update_vocab=True)]
        words = self._tokenizer.get_vocab_dict()
        if len(words) < 2:  # the empty word is always one
            raise InputError(f"{name}: has no words to search for (expected texts)")
        self._index: Any = bm25s.BM25(k1=options.k1, b=options.b, method="lucene")
        self._index.index((tokens, words), show_progress=False)
        self._depth = options.depth
        self._empty = words.get("")

    def best(self, query: str) -> Iterator[tuple[int, float]]:
        """Number and score of the first `depth` documents that share a word with the query, best first."""
        (found,) = self._tokenizer.streaming_tokenize([query], update_vocab=False, allow_empty=False)
        words = [word for word in found if word != self._empty]
        if not words:
            return
        scores: npt.NDArray[np.float32] = self._index.get_scores_from_ids(words)
        matching = np.flatnonzero(scores > 0)
        if len(matching) > self._depth:
            least = np.partition(scores[matching], -self._depth)[-self._depth]
            matching = matching[scores[matching] >= least]
        order = matching[np.argsort(-scores[matching], kind="stable")][: self._depth]
        yield from zip(order.tolist(), scores[order].tolist(), strict=True)


def is_unspaced(texts: Sequence[str]) -> bool:
    """Whether most letters of the texts are of scripts that put no spaces between words."""
    whole = "\n".join(texts)
    return 2 * len(_UNSPACED.findall(whole)) > len(_LETTER.findall(whole))
