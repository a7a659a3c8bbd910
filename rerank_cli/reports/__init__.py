"""Reports as HTML pages or as text, and the text of `rerank view`.

Knows outputs, inputs and judgements; no models. User text is escaped. Entry points: `collect.findings`, `page`, `view`.
"""
