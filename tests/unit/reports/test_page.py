import re
from html.parser import HTMLParser

import pytest
from made import answer, request

from rerank_cli.reports.page import page

HOSTILE = "</script><script>alert(1)</script><img src=x onerror=alert(2)>\"'>&\u202e{{ 7 * 7 }}"
VOID = {"meta", "link", "br", "img", "input", "rect", "line", "circle"}


class Page(HTMLParser):
    """Elements with their attributes, and the text around them; unbalanced elements fail the test."""

    def __init__(self, text):
        super().__init__()
        self.elements, self.open, self.words = [], [], []
        self.feed(text)
        assert self.open == []

    def handle_starttag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_endtag(self, tag):
        if tag not in VOID:
            assert self.open.pop() == tag

    def handle_startendtag(self, tag, attributes):
        self.elements.append((tag, dict(attributes)))

    def handle_data(self, data):
        self.words.append(data)

    def named(self, name):
        return [attributes for tag, attributes in self.elements if tag == name]


@pytest.fixture
def many():
    answers = [answer(f"q{n}", [(i + n) % 12 for i in range(12)]) for n in range(30)]
    return answers, [request(f"q{n}", 12) for n in range(30)], "".join(f"q{n} 0 d{n % 7} 1\n" for n in range(30))


def test_a_page_holds_every_part(found, many):
    answers, requests, qrels = many
    text = page(found(answers, requests, qrels, summary={"pairs_per_second": 1234.5, "seconds": {"total": 3.0}}))
    parts = re.findall(r'<section id="(\w+)"', text)
    assert parts == ["quality", "movement", "scores", "won", "lost", "records", "queries", "manifest"]
    shown = Page(text)
    assert {"1,234", "360", "30"} <= set(shown.words)
    assert any("query q1" in word for word in shown.words)


def test_texts_of_users_are_never_markup(found):
    answers = [answer(HOSTILE, [1, 0]), answer("b", [0, 1])]
    answers[0]["results"][0]["document"] |= {"id": HOSTILE, "title": HOSTILE, "text": HOSTILE}
    answers[0]["model"] = HOSTILE
    summary = {HOSTILE: HOSTILE, "seconds": {HOSTILE: 1.0}}
    qrels = '{"qid": "b", "docid": "d1", "relevance": 1}\n'
    for given in (None, qrels):
        shown = Page(page(found(answers, [request(HOSTILE, query=HOSTILE), request("b")], given, summary=summary)))
        assert len(shown.named("script")) == 1
        assert not shown.named("img")
        assert HOSTILE in shown.words


def test_a_page_asks_nobody_for_anything(found, many):
    shown = Page(page(found(*many)))
    for name in ("src", "href", "action", "style", "onclick"):
        assert {attributes[name] for _, attributes in shown.elements if name in attributes} <= {"data:,"}
    (policy,) = [meta["content"] for meta in shown.named("meta") if meta.get("http-equiv")]
    assert policy.startswith("default-src 'none'")
    assert "unsafe" not in policy


def test_texts_of_users_say_their_own_direction(found, many):
    text = page(found(*many))
    assert not re.findall(r'<(?:bdi|h1|h4)(?! [^>]*dir="auto")', text)
    assert '<p class="title" dir="auto">' in text
    assert '<p class="text" dir="auto">' in text


def test_every_chart_has_a_name(found, many):
    charts = [svg for svg in Page(page(found(*many))).named("svg") if svg.get("aria-hidden") != "true"]
    assert len(charts) == 7
    assert all(svg["role"] == "img" and svg["aria-label"] for svg in charts)


def test_the_axes_of_square_charts_are_named(found, many):
    words = Page(page(found(*many))).words
    for label in ("before →", "after →", "first-stage rank →", "new rank →"):
        assert words.count(label) == 1


def test_without_judgements_the_largest_moves_are_the_examples(found, many):
    answers, requests, _ = many
    text = page(found(answers, requests))
    assert '<section id="climbs">' in text
    assert '<section id="quality">' not in text


def test_of_bare_answers_it_says_what_is_missing(found):
    rows = [{"query_id": "a", "docid": f"d{i}", "relevance_score": float(i)} for i in (5, 3)]
    text = page(found(rows))
    assert "First-stage ranks are unknown" in text
    assert '<section id="movement">' not in text
    assert "--mark-truncated" in text


def test_truncated_pairs_are_counted_and_listed(found):
    answers = [answer("a", [1, 0]), answer("b", [0, 1])]
    answers[0]["results"][0]["truncated"] = True
    answers[1]["results"][0]["truncated"] = False
    text = page(found(answers))
    assert "Most truncated" in text
    assert "of the pairs were truncated" in text


def test_long_texts_and_many_queries_stay_small(found):
    answers = [answer(f"q{n}", range(20)) for n in range(700)]
    for one in answers:
        for result in one["results"]:
            result["document"]["text"] = "word " * 40
        one["results"][0]["document"]["text"] = "unending" * 500
    qrels = "".join(f"q{n} 0 d{n % 20} 1\n" for n in range(700))
    text = page(found(answers, qrels=qrels))
    assert len(text.encode()) < 500_000
    assert "300 are drawn" in text
    assert "150 of 700 queries" in text


@pytest.mark.parametrize("answers", [[answer("a", [])], [answer("a", [0])], [answer("a", [0], scores=[0.0])]])
def test_the_smallest_outputs_have_a_page(found, answers):
    assert Page(page(found(answers, qrels="a 0 d0 1\n")))
