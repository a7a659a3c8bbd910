"""The report of a training run, from its log and its manifest."""

import json

import pytest
from test_page import HOSTILE, Page

from rerank_cli.errors import InputError
from rerank_cli.reports.training import is_training, page, read_log, text_of


def step(number, loss):
    return {"step": number, "epoch": number / 10, "loss": loss, "lr": 1e-5 * number, "tokens": 100, "seconds": 0.5}


def evaluation(number, value, p=None):
    difference = {"nDCG@10": {"permutation_p": p}} if p is not None else None
    line = {"event": "evaluation", "step": number, "measures": {"nDCG@10": value}, "queries": 40}
    return line | ({"differences": difference} if difference else {})


LINES = [
    evaluation(0, 0.5),
    *(step(n, 2 - n / 1000) for n in range(1, 901)),
    evaluation(450, 0.6, 0.01),
    evaluation(900, 0.58, 0.04),
]
MANIFEST = {
    "base": {"name": HOSTILE},
    "settings": {"lr": 1e-5, "note": HOSTILE},
    "data": {"files": {HOSTILE: "ab" * 32}},
}


@pytest.fixture
def finished(tmp_path):
    folder = tmp_path / "out"
    folder.mkdir()
    (folder / "training_log.jsonl").write_text("".join(json.dumps(line) + "\n" for line in LINES))
    (folder / "rerank_training.json").write_text(json.dumps(MANIFEST))
    return folder


def test_the_page_has_curves_of_loss_and_quality_and_no_markup_of_users(finished):
    assert is_training(str(finished))
    shown = Page(page(read_log(str(finished))).replace("polyline", "polygon"))
    curves = [curve["points"].split() for curve in shown.named("polygon")]
    assert [len(points) for points in curves] == [3, 300, 450]  # quality, means of three losses, rates
    assert curves[0][1].startswith("500.00,")
    assert "0.6000" in shown.words
    assert any("p = 0.01; step 450" in word for word in shown.words)
    assert not shown.named("script")
    assert not shown.named("img")


def test_the_terminal_shows_the_loss_and_the_best_evaluation(finished):
    text = text_of(read_log(str(finished)))
    assert "900  steps" in text
    assert "1.9920 → 1.1070" in text
    assert "450          0.6000  best" in text


def test_a_run_that_goes_on_has_a_report_without_its_last_half_line(tmp_path):
    folder = tmp_path / "out.partial"
    folder.mkdir()
    (folder / "log.jsonl").write_text("".join(json.dumps(step(n, 2)) + "\n" for n in (1, 2)) + '{"step": 3, "lo')
    assert is_training(str(tmp_path / "out"))
    found = read_log(str(tmp_path / "out"))
    assert len(found.steps) == 2
    assert "not finished" in page(found)
    (folder / "log.jsonl").write_text("")
    with pytest.raises(InputError, match="no step is computed yet"):
        read_log(str(tmp_path / "out"))
