"""What people look at: the HTML page and terminal version of a report, the pages of `rerank view`.

Knows outputs, inputs and judgements; no models. User text reaches a page escaped only. Face: `collect.findings`,
`page.page`, `terminal.text_of`, `view.queries`.
"""
