"""Requests and answers, made up."""


def document(index, **more):
    return {"id": f"d{index}", "title": f"Title {index}", "text": f"Text {index}", **more}


def answer(name, order, scores=None, documents=True, **more):
    """An answer whose results are the candidates of `order`, with falling scores."""
    values = scores or [0.9 - 0.1 * place for place in range(len(order))]
    results = [
        {
            "index": index,
            **({"document": document(index)} if documents else {"id": f"d{index}"}),
            "relevance_score": value,
        }
        for index, value in zip(order, values, strict=True)
    ]
    return {"id": name, "model": "mini", "usage": {"total_tokens": 10 * len(order)}, "results": results, **more}


def request(name, count=5, query=None):
    return {"id": name, "query": query or f"query {name}", "documents": [document(index) for index in range(count)]}
