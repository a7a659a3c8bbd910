"""A report in a real browser without a screen; skipped where there is no Chromium.

The page is looked at as the browser built it, after its script has run, with the network taken away.
"""

import re
import shutil
import subprocess

import pytest
from shell import rerank, write_lines

BROWSER = next(filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome", "chrome"))), None)
FLAGS = (
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--dump-dom",
)
HOSTILE = "</script><script>document.title = 'taken'</script><img src='https://example.org/x'>"

pytestmark = pytest.mark.skipif(BROWSER is None, reason="REPORT NOT TESTED IN A BROWSER: no Chromium on this machine")


@pytest.fixture(scope="module")
def page(tmp_path_factory):
    """The text of a report in which a user's texts try to be markup."""
    folder = tmp_path_factory.mktemp("report")
    answers, requests, qrels = [], [], []
    for n in range(40):
        documents = [{"id": f"d{i}", "title": HOSTILE, "text": f"עברית {HOSTILE} {i}"} for i in range(20)]
        order = [(i * 7 + n) % 20 for i in range(20)]
        results = [{"index": i, "document": documents[i], "relevance_score": 0.95**p} for p, i in enumerate(order)]
        answers.append({"id": f"q{n}", "model": "m", "results": results})
        requests.append({"id": f"q{n}", "query": f"query {n} {HOSTILE}", "documents": documents})
        qrels.append(f"q{n} 0 d{n % 9} 1")
    output, given = write_lines(folder / "out.jsonl", answers), write_lines(folder / "in.jsonl", requests)
    judged = write_lines(folder / "qrels.txt", qrels)
    path = folder / "report.html"
    ended = rerank("report", output, "--input", given, "--qrels", judged, "-o", path)
    assert ended.code == 0, ended.err
    return path.read_text(encoding="utf-8")


@pytest.fixture
def browsed(tmp_path):
    """What the browser made of a page, and the lines of its console."""

    def browsed(text):
        path = tmp_path / "page.html"
        path.write_text(text, encoding="utf-8")
        command = [BROWSER, *FLAGS, f"--user-data-dir={tmp_path / 'profile'}", "--host-resolver-rules=MAP * ~NOTFOUND"]
        ended = subprocess.run([*command, path.as_uri()], capture_output=True, timeout=120, check=True)
        console = re.findall(rb"CONSOLE[:(].*", ended.stderr)
        return ended.stdout.decode("utf-8"), [line.decode("utf-8", "replace") for line in console]

    return browsed


def test_it_opens_without_a_word_on_the_console(page, browsed):
    document, console = browsed(page)
    assert console == []
    assert document.count("<script") == 1
    assert "<img" not in document
    assert "<title>out.jsonl: rerank report</title>" in document
    for part in ("quality", "movement", "scores", "won", "lost", "records", "queries", "manifest"):
        assert f'<section id="{part}">' in document
    assert document.count("<svg") >= 7
    assert "&lt;/script&gt;" in document


def test_its_script_makes_the_table_sortable(page, browsed):
    document, _ = browsed(page)
    assert document.count('<button type="button">') == 7


def test_a_script_that_is_not_the_pages_own_does_not_run(page, browsed):
    document, console = browsed(page.replace('"use strict";', '"use strict"; document.title = "taken";'))
    assert "taken</title>" not in document
    assert any("Content Security Policy" in line for line in console)
