"""What a terminal is shown of a report, and by `rerank view`."""

from contextlib import ExitStack

import pytest
from made import answer, request

from rerank_cli.errors import InputError
from rerank_cli.reports import terminal, view
from rerank_cli.reports.view import ViewOptions, bar, queries


@pytest.fixture
def viewed(lines):
    def viewed(answers, requests=None, qrels=None, colour=False, top=10, full=False, **options):
        inputs = (lines("in.jsonl", requests),) if requests else ()
        judged = lines("qrels.txt", qrels) if qrels else None
        with ExitStack() as stack:
            found = queries(ViewOptions(lines("out.jsonl", answers), inputs, judged, **options), stack)
            return "".join(view.text_of(query, judgements, top, colour, full) for query, judgements in found)

    return viewed


def test_the_figures_of_a_report_as_plain_text(found):
    seen = found([answer("a", [2, 0, 1]), answer("b", [1, 0])], qrels="a 0 d2 1\nb 0 d0 1\n")
    text = terminal.text_of(seen, colour=False)
    assert "\x1b" not in text
    assert "nDCG@10   0.7500 → 0.8155  +0.0655" in text
    assert "1 better, 1 worse, 0 unchanged" in text
    assert "won   0.500 → 1.000  a" in text
    assert "█" in text


def test_long_queries_are_cut_at_the_edge_and_figures_stay(found):
    name = "a" * 40
    text = terminal.text_of(found([answer(name, [1, 0])], [request(name, 2, "long " * 30)]), colour=False)
    longest = text.split("longest\n")[1].splitlines()
    assert longest[0].startswith("  2 candidates")
    assert longest[0].endswith("…")
    assert max(map(len, text.splitlines())) == len(longest[0]) == 100


def test_colours_on_a_terminal_alone(found):
    assert "\x1b[" in terminal.text_of(found([answer("a", [1, 0])]), colour=True)


def test_a_sparkline_has_a_character_a_count():
    assert terminal.sparkline([0, 1, 4, 8]) == " ▂▅█"
    assert terminal.sparkline([0, 0]) == ""


def test_a_passage_has_its_ranks_score_mark_and_text(viewed):
    first, second, third, *_ = viewed([answer("a", [2, 0])], [request("a")], "a 0 d2 1\na 0 d0 0\n").splitlines()
    assert first == "a  query a"
    assert second.split() == ["1", "███████▎", "0.9000", "was", "3", "▲2", "✓", "d2", "Title", "2", "Text", "2"]
    assert third.split()[3:7] == ["was", "1", "▼1", "✗"]


def test_what_is_left_out_is_said(viewed):
    assert "… 2 more" in viewed([answer("a", [2, 0, 1])], top=1)


def test_one_query_alone(viewed):
    answers = [answer("a", [0]), answer("b", [0])]
    assert viewed(answers, query="b").startswith("b  ")
    with pytest.raises(InputError, match="no query with this id"):
        viewed(answers, query="c")


def test_an_empty_file_is_told(viewed):
    with pytest.raises(InputError, match="is empty"):
        viewed([])


def test_nothing_a_terminal_would_act_on_is_shown(viewed):
    hostile = "\x1b[31mred\x07 \u202eevil [bold]markup[/bold]"
    text = viewed([answer(hostile, [0])], [request(hostile, query=hostile)])
    assert "\x1b" not in text
    assert "\u202e" not in text
    assert "[bold]markup[/bold]" in text


def test_a_long_text_ends_at_the_edge(viewed):
    (line,) = [line for line in viewed([answer("a", [0])], [request("a")], None).splitlines() if "Title" in line]
    assert len(line) <= 120
    given = request("a")
    given["documents"][0]["text"] = "long " * 500
    one = answer("a", [0], documents=False)
    assert max(map(len, viewed([one], [given]).splitlines())) == 120


def test_whole_texts_are_wrapped_below_their_line(viewed):
    given = request("a", query="what " * 60)
    given["documents"][0]["text"] = "long " * 500 + "end\n\n\tsecond \x1b[31mparagraph"
    lines = viewed([answer("a", [0], documents=False)], [given], full=True).splitlines()
    assert max(map(len, lines)) <= 120
    assert " ".join(lines).count("what") == 60
    assert " ".join(lines).count("long") == 500
    assert lines[-2:] == ["          second \\x1b[31mparagraph", ""]
    assert next(line for line in lines if "Title 0" in line).endswith("d0  Title 0")


@pytest.mark.parametrize(
    ("score", "span", "drawn"),
    [
        (0.0, (0, 1), "        "),
        (1.0, (0, 1), "████████"),
        (0.5, (0, 1), "████    "),
        (3, (-3, 3), "████████"),
        (2, (2, 2), "█" * 8),
    ],
)
def test_a_bar_has_eight_places(score, span, drawn):
    assert bar(score, span) == drawn


def test_only_as_much_is_read_as_is_shown(lines):
    path = lines("out.jsonl", [answer("a", [0])])
    with open(path, "a") as file:
        file.write("not JSON\n")
    with ExitStack() as stack:
        found = queries(ViewOptions(path), stack)
        assert next(found)[0].id == "a"
        with pytest.raises(InputError, match=r"out\.jsonl:2"):
            next(found)
