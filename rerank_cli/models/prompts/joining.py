"""Whether a tokenizer gives the same ids for the pieces of a prompt, each alone, as for the whole prompt."""

from __future__ import annotations

from rerank_cli.models.prompts.profiles import Profile, fill
from rerank_cli.models.prompts.tokens import TextTokenizer

# Ends and beginnings of texts that merge with their neighbours in one tokenizer or another.
ENDS = ("a", "1", "?", "a.", "a ", "a\n", "a\n\n", "a:", "é", "中", "<", "'", "")
BEGINNINGS = ("a", "1", "?", " a", "  a", "\na", "\n\n a", ":a", "é", "中", ">a", "'s", "")
_TEXTS = ("", "a", "1 b.", " a ", "\na\n\n", "?!", "é 中", "'s <a>:", " \n")


def splits_at_pieces(profile: Profile, tokenizer: TextTokenizer) -> bool:
    """Checked with texts that begin and end in letters, digits, marks, white space and nothing."""
    texts = [text.strip() if profile.strips else text for text in _TEXTS]
    instructions = [profile.query_instruction, *(["Find it."] if profile.instructed_query else [])]
    for instruction in instructions:
        template = profile.instructed_query if instruction and profile.instructed_query else profile.query
        queries = [fill(template, query=text, instruction=instruction) for text in texts]
        passages = [fill(profile.passage, passage=text, instruction=profile.passage_instruction) for text in texts]
        before, between, after = (
            [fill(piece, prompt=profile.prompt) for piece in pieces]
            for pieces in (profile.prefix, profile.middle, profile.suffix)
        )
        ids = {piece: tokenizer.ids(piece).tolist() for piece in (*before, *between, *after, *queries, *passages)}
        for query in queries:
            for passage in passages:
                first, second = (passage, query) if profile.passage_first else (query, passage)
                pieces = [*before, first, *between, second, *after]
                if tokenizer.ids("".join(pieces)).tolist() != [number for piece in pieces for number in ids[piece]]:
                    return False
    return True
