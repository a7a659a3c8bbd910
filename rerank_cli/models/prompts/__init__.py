"""Token ids from the texts of a pair: prompt profiles, tokenizers, pair templates and truncation.

Knows tokenizers and strings; no weights. Entry points: `profile_files.read_profile`, `tokens.load_tokenizer`,
`pairs.PairRule`.
"""
