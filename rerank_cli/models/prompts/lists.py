"""The prompt of a listwise reranker: a query with all its passages in one sequence, or in a few windows.

Sources: `modeling.py` of `jinaai/jina-reranker-v3` (`format_docs_prompts_func`, `sanitize_input`, `_truncate_texts`,
`rerank`), whose ports in vLLM and MLX have the same prompt. The prompt is tokenized as one string, as there.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rerank_cli.errors import ModelError
from rerank_cli.models.checkpoint import Checkpoint, read_object
from rerank_cli.models.prompts.profiles import Profile
from rerank_cli.models.prompts.tokens import TextTokenizer
from rerank_cli.models.stated import TOKENIZER

QUERY_MARK, PASSAGE_MARK = "<|rerank_token|>", "<|embed_token|>"  # where the states of a text are read
PASSAGE_TOKENS, QUERY_TOKENS = 2048, 512  # `max_doc_length` and `max_query_length`
WINDOW_PASSAGES = 125  # `block_size`
_SYSTEM = (
    "<|im_start|>system\n"
    "You are a search relevance expert who can determine a ranking of the passages based on how relevant they are to "
    "the query. If the query is a question, how relevant a passage is depends on how well it answers the question. If "
    "not, try to analyze the intent of the query and assess how well each passage satisfies the intent. If an "
    "instruction is provided, you should follow the instruction when determining the ranking.<|im_end|>\n"
    "<|im_start|>user\n"
)
_TASK = (
    "I will provide you with {count} passages, each indicated by a numerical identifier. Rank the passages based on "
    "their relevance to query: {query}\n"
)
_END = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"

# For people: the parts of the prompt around each text. `prompt_of` writes it.
PROFILE = Profile(
    "jina-list",
    prefix=(_SYSTEM, _TASK.replace("{count}", "N").replace("{query}", "QUERY").replace("\n", "")),
    query=f"<query>\n{{query}}{QUERY_MARK}\n</query>",
    passage=f'<passage id="0">\n{{passage}}{PASSAGE_MARK}\n</passage>',
    suffix=(_END,),
    max_length=PASSAGE_TOKENS,
)


@dataclass(frozen=True, slots=True)
class ListRule:
    """How a list is read. `query_mark` and `passage_mark` are the ids of the tokens whose states give the scores.

    A window has at most `passages` passages; their tokens and twice those of the query, which is in it twice, are at
    most `window`.
    """

    query_mark: int
    passage_mark: int
    window: int
    passages: int = WINDOW_PASSAGES

    def windows(self, lengths: Sequence[int], query: int, longest: int) -> list[slice]:
        """The windows of a list, by the tokens of each passage, of the query, and of the longest passage that may be.

        A window ends where another passage of the `longest` length might not fit.
        """
        found, start, left = [], 0, self.window - 2 * query
        for place, length in enumerate(lengths, 1):
            left -= length
            if place - start >= self.passages or left <= longest or place == len(lengths):
                found.append(slice(start, place))
                start, left = place, self.window - 2 * query
        return found


def list_rule(checkpoint: Checkpoint, tokenizer: TextTokenizer) -> ListRule:
    """The rule of a checkpoint. Raises ModelError if its tokenizer lacks one of the two tokens."""
    marks = [tokenizer.token_id(mark) for mark in (QUERY_MARK, PASSAGE_MARK)]
    if marks[0] is None or marks[1] is None:
        lacking = QUERY_MARK if marks[0] is None else PASSAGE_MARK
        raise ModelError(f"{checkpoint.name}: the tokenizer has no token {lacking}, at which a score is read")
    limits = [read_object(checkpoint.folder / TOKENIZER).get("model_max_length")]
    limits.append(checkpoint.config.get("max_position_embeddings"))
    stated = [int(limit) for limit in limits if isinstance(limit, (int, float)) and not isinstance(limit, bool)]
    return ListRule(marks[0], marks[1], min(stated, default=131_072))


def prompt_of(query: str, passages: Sequence[str], instruction: str | None = None) -> str:
    """The prompt of a window. The two tokens that mark its texts are removed from them."""
    query = without_marks(query)
    asked = f"<instruct>\n{instruction}\n</instruct>\n" if instruction else ""
    read = "\n".join(
        f'<passage id="{number}">\n{without_marks(passage)}{PASSAGE_MARK}\n</passage>'
        for number, passage in enumerate(passages)
    )
    task = _TASK.replace("{count}", str(len(passages)), 1).replace("{query}", query, 1)
    return f"{_SYSTEM}{task}{asked}{read}\n<query>\n{query}{QUERY_MARK}\n</query>{_END}"


def without_marks(text: str) -> str:
    """The text without the tokens that mark the end of a text, also where one appears by the removal of the other."""
    while QUERY_MARK in text or PASSAGE_MARK in text:
        text = text.replace(QUERY_MARK, "").replace(PASSAGE_MARK, "")
    return text
