"""What a person looks at: the page of a report, its terminal version, and the pages of `rerank view`.

Reads what runs wrote, through `formats`; knows nothing of models, and no text of a user reaches a page unescaped.
"""
