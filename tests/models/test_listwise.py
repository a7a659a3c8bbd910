"""jina-reranker-v3: ids by transformers' tokenizer, scores by the stock Qwen3 and a projection written out here."""

import json

import numpy as np
import pytest
import torch
from jina import MARKS, WINDOW, make_jina
from safetensors.torch import load_file, save_file
from test_prompts import PASSAGES, QUERIES, TEXT
from transformers import PreTrainedTokenizerFast, Qwen3Config, Qwen3Model

from rerank_cli.choices import LongDocuments, OutputFormat, ProgressMode, Quantize
from rerank_cli.engine.limits import open_tokenizer
from rerank_cli.engine.options import ModelOptions
from rerank_cli.engine.rows.prepare import PairTexts
from rerank_cli.engine.session import open_session
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.formats import AnswerOptions, InputOptions, OutputOptions
from rerank_cli.inspection.score import score_documents
from rerank_cli.models.options import FamilyOptions
from rerank_cli.models.prompts.lists import ListRule
from rerank_cli.models.trainable import TrainedPart
from rerank_cli.run.job import run
from rerank_cli.run.options import RunConfig
from rerank_cli.training.setup import open_model
from rerank_cli.training.tokens import Lengths

TOLERANCE = 1e-5
BLOCK = 125
# What the published code writes, as one string.
HEAD = (
    "<|im_start|>system\nYou are a search relevance expert who can determine a ranking of the passages based on how "
    "relevant they are to the query. If the query is a question, how relevant a passage is depends on how well it "
    "answers the question. If not, try to analyze the intent of the query and assess how well each passage satisfies "
    "the intent. If an instruction is provided, you should follow the instruction when determining the ranking."
    "<|im_end|>\n<|im_start|>user\nI will provide you with %d passages, each indicated by a numerical identifier. Rank "
    "the passages based on their relevance to query: %s\n"
)
TAIL = "<|im_end|>\n<|im_start|>assistant\n<think>\n\n</think>\n\n"


@pytest.fixture(scope="module")
def jina(tmp_path_factory):
    return make_jina(tmp_path_factory.mktemp("jina"))


class Reference:
    """The published `rerank`, written out: block by block, then the mean of the blocks' queries."""

    def __init__(self, folder, longest=2048, query=512):
        self.tokenizer = PreTrainedTokenizerFast.from_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        weights = load_file(folder / "model.safetensors")
        self.model = Qwen3Model(Qwen3Config.from_dict(config)).eval()
        own = {name.removeprefix("model."): value for name, value in weights.items() if name.startswith("model.")}
        self.model.load_state_dict(own)
        self.inner, self.outer = (weights[f"projector.{number}.weight"] for number in (0, 2))
        self.longest, self.query = longest, query
        self.marks = [self.tokenizer.convert_tokens_to_ids(mark) for mark in MARKS]

    def cut(self, text, limit):
        ids = self.tokenizer(text, truncation=True, max_length=limit)["input_ids"]
        return (self.tokenizer.decode(ids) if len(ids) >= limit else text), len(ids)

    def prompt(self, query, passages, instruction=None):
        clean = lambda text: text.replace("<|rerank_token|>", "").replace("<|embed_token|>", "")  # noqa: E731
        query, passages = clean(query), [clean(passage) for passage in passages]
        parts = [HEAD.replace("%d", str(len(passages))).replace("%s", query)]
        if instruction:
            parts.append("<instruct>\n" + instruction + "\n</instruct>\n")
        for number, passage in enumerate(passages):
            parts.append(f'<passage id="{number}">\n' + passage + "<|embed_token|>\n</passage>\n")
        return "".join([*parts, "<query>\n", query, "<|rerank_token|>\n</query>", TAIL])

    def blocks(self, query, passages):
        query, query_length = self.cut(query, self.query)
        found, block = [], []
        capacity = self.tokenizer.model_max_length - 2 * query_length
        for passage in passages:
            text, length = self.cut(passage, self.longest)
            block.append(text)
            capacity -= length
            if len(block) >= BLOCK or capacity <= self.longest:
                found.append(block)
                block, capacity = [], self.tokenizer.model_max_length - 2 * query_length
        return query, [*found, block] if block else found

    @torch.no_grad()
    def rerank(self, query, passages, instruction=None):
        """Ids of each block, and the scores of all passages in their order."""
        query, blocks = self.blocks(query, passages)
        every, queries, shares, vectors = [], [], [], []
        for block in blocks:
            ids = self.tokenizer(self.prompt(query, block, instruction), add_special_tokens=True)["input_ids"]
            every.append(ids)
            states = self.model(input_ids=torch.tensor([ids])).last_hidden_state[0].double()
            at = {mark: [place for place, token in enumerate(ids) if token == mark] for mark in self.marks[1:]}
            project = lambda places, states=states: (  # noqa: E731
                (states[places] @ self.inner.double().T).clamp(min=0) @ self.outer.double().T
            )
            found, (asked,) = project(at[self.marks[1]]).numpy(), project(at[self.marks[2]]).numpy()
            queries.append(asked)
            vectors.extend(found)
            shares.append(max((1 + cosine(one, asked)) / 2 for one in found))
        mean = np.average(queries, axis=0, weights=shares)
        return every, [cosine(one, mean) for one in vectors]


def cosine(left, right):
    return left @ right / np.linalg.norm(left) / np.linalg.norm(right)


def opened(folder, **options):
    return open_session(ModelOptions(str(folder), **{"device": "cpu", "dtype": "fp32", "threads": 1} | options))


def texts(*requests):
    """Requests (query, passages) or (query, passages, instruction) as pairs of lists."""
    found = [
        (request[0], passage, 0, request[2] if len(request) > 2 else None, number)
        for number, request in enumerate(requests)
        for passage in request[1]
    ]
    return PairTexts(*(list(column) for column in zip(*found, strict=True)))


def scored(session, *requests):
    """Ids of the windows of each distinct list, and the scores of all pairs as a run and `--verify` compute them."""
    pairs = texts(*requests)
    ready = session.prepare(pairs)
    ids = [[part.tolist() for part in np.split(row.row.ids, row.row.starts[1:])] for row in ready.rows]
    return ids, session.score(ready), session.score_plainly(pairs)


@pytest.mark.slow
def test_ids_and_scores_are_those_of_the_reference(jina):
    session, reference = opened(jina), Reference(jina)
    requests = [(query, PASSAGES) for query in QUERIES]
    ids, scores, plain = scored(session, *requests)
    expected = []
    for (query, passages), ours in zip(requests, ids, strict=True):
        theirs, found = reference.rerank(query, passages)
        assert ours == theirs, query
        expected += found
    worst = max(np.abs(found - expected).max() for found in (scores, plain))
    print(f"worst |Δ| {worst:.1e}; scores {min(expected):.3f} to {max(expected):.3f}")
    assert worst <= TOLERANCE
    assert np.ptp(expected) > 1000 * TOLERANCE
    assert (session.facts.family, session.facts.listwise, session.facts.scores) == ("listwise", True, "raw")
    assert (session.facts.max_length, session.facts.query_max_length) == (2048, 512)


def test_an_instruction_has_its_place(jina):
    request = ("what is panda?", PASSAGES[:6], "Find {bears}.\n")
    ids, scores, _ = scored(opened(jina), request)
    theirs, expected = Reference(jina).rerank(*request)
    assert ids == [theirs]
    assert np.abs(scores - expected).max() <= TOLERANCE
    assert np.abs(scores - scored(opened(jina), request[:2])[1]).max() > 1000 * TOLERANCE


@pytest.mark.slow
def test_long_lists_are_divided_into_windows(jina):
    """By the number of passages, and by their tokens, of which a window has less room here."""
    session, reference = opened(jina), Reference(jina)
    short = [f"{number} pandas {PASSAGES[number % 10]}" for number in range(2 * BLOCK + 3)]
    long = [f"{number} {TEXT[number * 40 :][:9000]}" for number in range(8)]
    for passages, count in ((short, 3), (long, 2)):
        ids, scores, _ = scored(session, ("what is panda?", passages))
        theirs, expected = reference.rerank("what is panda?", passages)
        assert ids == [theirs]
        assert len(theirs) == count
        assert np.abs(scores - expected).max() <= TOLERANCE
        # A window alone has another query than the list.
        alone = scored(session, ("what is panda?", passages[: BLOCK if passages is short else 4]))[1]
        assert np.abs(scores[: len(alone)] - alone).max() > 1e-4


def test_windows_close_where_another_passage_might_not_fit():
    rule = ListRule(0, 1, window=100, passages=4)
    assert rule.windows([], 5, 20) == []
    assert rule.windows([1] * 9, 5, 20) == [slice(0, 4), slice(4, 8), slice(8, 9)]
    assert rule.windows([20, 20, 20, 20, 20, 20], 10, 20) == [slice(0, 3), slice(3, 6)]
    assert rule.windows([20, 20, 21, 20], 10, 20) == [slice(0, 3), slice(3, 4)]
    assert rule.windows([20, 20, 19, 20], 10, 20) == [slice(0, 4)]
    assert rule.windows([20, 20], 45, 20) == [slice(0, 1), slice(1, 2)]


def test_shorter_limits(jina):
    session, reference = opened(jina, max_length=40, query_max_length=6), Reference(jina, 40, 6)
    request = (QUERIES[0] * 3, [*PASSAGES, TEXT[:150], TEXT[:152], TEXT[:154], TEXT[:156]])
    ids, scores, _ = scored(session, request)
    theirs, expected = reference.rerank(*request)
    assert ids == [theirs]
    assert np.abs(scores - expected).max() <= TOLERANCE


def test_a_record_may_limit_the_tokens_of_a_passage(jina):
    pairs = texts(("what is panda?", [TEXT[:400], TEXT[:4000]]))
    ready = opened(jina).prepare(PairTexts(pairs.queries, pairs.passages, [10, 20], lists=pairs.lists))
    reference = Reference(jina)
    cut = [reference.cut(text, cap)[0] for text, cap in zip(pairs.passages, (10, 20), strict=True)]
    assert ready.rows[0].row.ids.tolist() == reference.rerank("what is panda?", cut)[0][0]
    assert ready.truncated.tolist() == [True, True]
    assert ready.tokens.sum() == ready.rows[0].row.tokens
    assert ready.tokens[1] == 20


def test_marks_in_texts_are_removed(jina):
    plain = ("what is panda?", ["a bear", "b"])
    marked = (
        "what <|rerank_token|>is panda?<|embed_token|>",
        ["a <|embed_token|>bear", "<|rerank_<|embed_token|>token|>b"],
    )
    session = opened(jina)
    ours, expected = (scored(session, request)[1] for request in (marked, plain))
    assert ours.tolist() == expected.tolist()


def test_scores_depend_on_the_other_passages_and_their_order_and_on_nothing_else(jina):
    session = opened(jina)
    query, passages = "what is panda?", PASSAGES[:8]
    whole = scored(session, (query, passages))[1]
    reverse = scored(session, (query, passages[::-1]))[1][::-1]
    fewer = scored(session, (query, passages[1:]))[1]
    assert np.abs(whole - reverse).max() > 1000 * TOLERANCE
    assert np.abs(whole[1:] - fewer).max() > 1000 * TOLERANCE
    others = [("1908", passages[:3]), (query, passages), (query, passages[::-1]), (query, passages)]
    ready = session.prepare(texts(*others))
    assert len(ready.rows) == 3  # equal lists are scored once
    among = session.score(ready)
    assert among[3:11].tolist() == among[19:].tolist() == whole.tolist()
    assert among[11:19][::-1].tolist() == reverse.tolist()
    several = opened(jina, threads=2)
    assert several.score(several.prepare(texts(*others))).tolist() == among.tolist()


def test_a_run_that_is_stopped_in_a_chunk_keeps_the_lists_that_are_scored(jina, tmp_path):
    records = [{"query": f"panda {number}", "documents": PASSAGES[: 2 + number % 6]} for number in range(12)]
    (tmp_path / "in.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records))

    class Stopping:
        """The session, which is asked to stop after three lists."""

        def __init__(self, session):
            self.session, self.facts, self.sizes, self.prepare = session, session.facts, session.sizes, session.prepare

        @property
        def work(self):
            return self.session.work

        def score(self, prepared, _, notes):
            asked = iter([False] * 3)
            return self.session.score(prepared, lambda: next(asked, True), notes)

    def go(name, session):
        output = OutputOptions(str(tmp_path / name), OutputFormat.API, AnswerOptions("jina"))
        given = InputOptions((str(tmp_path / "in.jsonl"),))
        config = RunConfig(ModelOptions(str(jina)), given, output, progress=ProgressMode.OFF, commit_interval=0)
        run(config, lambda _: session, signals=False)
        return session.work.rows

    assert go("out.jsonl", Stopping(opened(jina))) == 3
    assert not (tmp_path / "out.jsonl").exists()
    assert go("out.jsonl", opened(jina)) == 9
    assert go("whole.jsonl", opened(jina)) == 12
    assert (tmp_path / "out.jsonl").read_bytes() == (tmp_path / "whole.jsonl").read_bytes()


def test_pairs_that_are_in_no_list_are_scored_alone(jina):
    session = opened(jina)
    alone = session.score(session.prepare(PairTexts(["panda"] * 2, ["a bear", "hi"], [0, 0])))
    each = [scored(session, ("panda", [passage]))[1][0] for passage in ("a bear", "hi")]
    assert alone.tolist() == each
    ranked = score_documents(session, "panda", ["a bear", "hi"])
    together = scored(session, ("panda", ["a bear", "hi"]))[1]
    assert {one.index: np.float32(one.score) for one in ranked} == dict(enumerate(together))
    assert not len(session.score(session.prepare(PairTexts([], [], []))))


def test_a_list_that_does_not_fit_the_device_is_not_divided(jina, monkeypatch):
    session = opened(jina)
    ready = session.prepare(texts(("panda", ["a bear", "hi"])))

    def full(*_, **__):
        raise torch.OutOfMemoryError

    monkeypatch.setattr(session._scorer.model.backbone, "forward", full)
    with pytest.raises(
        ModelError, match=rf"list of 2 passages of {ready.rows[0].row.tokens} tokens. Fix: --max-length"
    ):
        session.score(ready)


def test_a_list_with_a_score_that_is_not_finite_is_computed_again_as_a_whole(jina, monkeypatch):
    session = opened(jina)
    exact = session._scorer.model.score
    broken = opened(jina)
    monkeypatch.setattr(broken._scorer, "rescue", lambda: session._scorer.model)
    monkeypatch.setattr(
        broken._scorer.model, "score", lambda row: exact(row).index_fill(0, torch.tensor([1]), float("nan"))
    )
    ready = broken.prepare(texts(("panda", ["a bear", "hi", "ho"]), ("bear", ["ho", "hi"])))
    assert broken.score(ready).tolist() == session.score(ready).tolist()
    assert broken.work.rescued == 2


def altered(jina, tmp_path, weights=None, without=(), **changes):
    folder = tmp_path / "altered"
    folder.mkdir()
    for path in jina.iterdir():
        (folder / path.name).write_bytes(path.read_bytes())
    config = json.loads((folder / "config.json").read_text()) | changes
    (folder / "config.json").write_text(json.dumps(config))
    kept = load_file(jina / "model.safetensors") | (weights or {})
    save_file({name: value for name, value in kept.items() if name not in without}, folder / "model.safetensors")
    return folder


def test_the_head_of_the_language_model_is_not_read(jina, tmp_path):
    rows = json.loads((jina / "config.json").read_text())["vocab_size"]
    folder = altered(jina, tmp_path, {"lm_head.weight": torch.randn(rows, 48)})
    request = ("panda", ["a bear", "hi"])
    assert scored(opened(folder), request)[1].tolist() == scored(opened(jina), request)[1].tolist()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"weights": {"projector.0.bias": torch.zeros(24)}}, r"1 tensors have no place .*\(projector.0.bias"),
        ({"weights": {"model.layers.0.more.weight": torch.zeros(2)}}, r"have no place .*layers.0.more"),
        ({"without": ("projector.2.weight",)}, "weights lack projector.2.weight"),
        ({"without": ("model.norm.weight",)}, "weights lack 1 tensors"),
        ({"weights": {"projector.0.weight": torch.zeros(24, 7)}}, r"projector.0.weight has the shape \(24, 7\)"),
        ({"weights": {"projector.2.weight": torch.zeros(20, 7)}}, r"projector.2.weight has the shape \(20, 7\)"),
        ({"weights": {"projector.2.weight": torch.full((20, 24), float("nan"))}}, "projector.2.weight"),
        ({"num_hidden_layers": 2}, "layer 2"),
        ({"use_sliding_window": True}, "sliding windows"),
        ({"layer_types": ["full_attention", "sliding_attention", "full_attention"]}, "sliding windows"),
        ({"model_type": "llama"}, "of type 'llama'"),
    ],
)
def test_other_checkpoints_are_refused(jina, tmp_path, changes, message):
    with pytest.raises(ModelError, match=message) as caught:
        opened(altered(jina, tmp_path, **changes))
    assert "\n" not in str(caught.value)


def test_a_tokenizer_without_the_marks_is_refused(jina, tmp_path):
    folder = altered(jina, tmp_path)
    path = folder / "tokenizer.json"
    path.write_text(path.read_text().replace("<|embed_token|>", "<|other_token|>"))
    with pytest.raises(ModelError, match=r"no token <\|embed_token\|>"):
        opened(folder)


@pytest.mark.parametrize(
    ("options", "flag"),
    [
        ({"batch_tokens": 512}, "--batch-tokens"),
        ({"compile": True}, "--compile"),
        ({"long_documents": LongDocuments.MAX}, "--long-documents"),
        ({"share_prefix": False}, "--no-share-prefix"),
        ({"family": FamilyOptions(query_instruction="find")}, "--query-instruction"),
        ({"family": FamilyOptions(prompt="rank")}, "--prompt"),
        ({"max_length": WINDOW}, "--max-length"),
        ({"query_max_length": WINDOW}, "--query-max-length"),
    ],
)
def test_options_without_effect_are_refused(jina, options, flag):
    with pytest.raises(UsageError, match=flag) as caught:
        opened(jina, **options)
    assert "\n" not in str(caught.value)


def test_it_is_not_trained(jina):
    with pytest.raises(ModelError, match="JinaForRanking is scored but not trained"):
        open_model(ModelOptions(str(jina), device="cpu"), TrainedPart(), Lengths())


@pytest.mark.slow
def test_int8_is_close(jina):
    session = opened(jina, quantize=Quantize.INT8)
    ids, scores, plain = scored(session, ("what is panda?", PASSAGES))
    assert session.facts.quantize == "int8"
    assert 1e-6 < np.abs(scores - plain).max() < 0.2
    assert len(ids[0]) == 1


def test_the_tokenizer_alone_tells_how_lists_are_read(jina):
    found = open_tokenizer(ModelOptions(str(jina)))
    assert (found.family, found.reading.lists.window, found.reading.lists.passages) == ("listwise", WINDOW, BLOCK)
    assert not found.remarks
    assert found.sources["max_length"] == "family"
    assert open_tokenizer(ModelOptions(str(jina), max_length=30)).sources["max_length"] == "flag"
