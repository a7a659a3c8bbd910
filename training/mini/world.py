"""Documents, windows and queries for training `mini`, from SQuAD train and SciFact train only.

`build` reads both collections. A document is a SQuAD paragraph or a SciFact abstract, cut once into windows of one to
three sentences. The last 20 SQuAD articles and every eighth SciFact train claim are held out: none of their texts, and
none of those claims, is in what `build` returns (SciFact's corpus is one for all claims, so its abstracts are).
SQuAD dev and SciFact's test claims are never read.
"""

from __future__ import annotations

import csv
import json
import random
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from texts import STOP, keywords, sentences, words

QUESTION, KEYWORDS, SENTENCE, RARE, TITLE, CLAIM = KINDS = "question", "keywords", "sentence", "rare", "title", "claim"
HELD_ARTICLES = 20
HELD_CLAIMS = 8  # every eighth
_RUN_DEPTH = 30  # of a claim's BM25 candidates


@dataclass(frozen=True, slots=True)
class Document:
    """`windows` are places in `World.windows`; `scifact` says of which collection it is."""

    text: str
    scifact: bool
    windows: range


@dataclass(frozen=True, slots=True)
class Query:
    """A text with the document that it belongs to, and the window of it where known.

    `relevant` are all documents that are judged relevant; `found` are candidates of a first stage, best first.
    """

    text: str
    kind: str
    document: int
    window: int | None = None
    relevant: frozenset[int] = frozenset()
    found: tuple[int, ...] = ()


@dataclass(slots=True)
class World:
    """All that groups are drawn from. `owner` is the document of each window."""

    documents: list[Document] = field(default_factory=list)
    windows: list[str] = field(default_factory=list)
    owner: list[int] = field(default_factory=list)
    queries: list[Query] = field(default_factory=list)

    def add(self, text: str, parts: list[list[str]], scifact: bool) -> int:
        """Append a document whose windows are these lists of sentences; returns its place."""
        first, place = len(self.windows), len(self.documents)
        self.windows += [" ".join(part) for part in parts]
        self.owner += [place] * len(parts)
        self.documents.append(Document(text, scifact, range(first, len(self.windows))))
        return place


def articles(path: Path) -> tuple[list[list[dict]], list[list[dict]]]:
    """Paragraphs of each article of a SQuAD file: those to train on, and those held out."""
    found = [article["paragraphs"] for article in json.loads(path.read_text(encoding="utf-8"))["data"]]
    return found[:-HELD_ARTICLES], found[-HELD_ARTICLES:]


def claims(folder: Path, held: bool) -> dict[str, list[str]]:
    """Relevant abstracts of SciFact's train claims, by claim id: those to train on, or those held out."""
    judged: dict[str, list[str]] = {}
    with (folder / "qrels" / "train.tsv").open(encoding="utf-8") as lines:
        for row in csv.DictReader(lines, delimiter="\t"):
            if int(row["score"]) > 0:
                judged.setdefault(row["query-id"], []).append(row["corpus-id"])
    ids = sorted(judged, key=int)
    return {key: judged[key] for place, key in enumerate(ids) if (place % HELD_CLAIMS == 0) == held}


def cut(found: list[str], rng: random.Random) -> list[list[str]]:
    """Sentences in windows of one to three."""
    parts: list[list[str]] = []
    at = 0
    while at < len(found):
        size = rng.choice((1, 1, 2, 2, 3))
        parts.append(found[at : at + size])
        at += size
    return parts


def answer_windows(context: str, parts: list[list[str]], question: dict) -> int:
    """Which of the windows of a SQuAD paragraph has the beginning of the first answer."""
    begin, at = question["answers"][0]["answer_start"], 0
    for number, part in enumerate(parts):
        for sentence in part:
            tail = sentence[-20:]
            at = context.find(tail, at) + len(tail)
        if at > begin:
            return number
    return len(parts) - 1


def build(squad: Path, scifact: Path, paragraphs: int, seed: int) -> World:
    """Read both collections, up to so many paragraphs of each SQuAD article."""
    rng = random.Random(seed)
    world = World()
    for article in articles(squad)[0]:
        for paragraph in rng.sample(article, min(paragraphs, len(article))):
            _add_paragraph(world, paragraph, rng)
    _add_scifact(world, scifact, rng)
    _add_made_queries(world, rng)
    return world


def _add_paragraph(world: World, paragraph: dict, rng: random.Random) -> None:
    """One question as it is and another one as keywords."""
    context = paragraph["context"]
    parts = cut(sentences(context), rng)
    place = world.add(context, parts, False)
    asked = rng.sample(paragraph["qas"], min(2, len(paragraph["qas"])))
    for number, question in enumerate(asked):
        text = question["question"].strip()
        window = world.documents[place].windows[answer_windows(context, parts, question)]
        kind, text = (QUESTION, text) if number == 0 else (KEYWORDS, keywords(text))
        world.queries.append(Query(text, kind, place, window, frozenset({place})))


def _add_scifact(world: World, folder: Path, rng: random.Random) -> None:
    places: dict[str, int] = {}
    for line in (folder / "corpus.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        title = row["title"].strip()
        place = world.add(f"{title} {row['text'].strip()}", cut(sentences(row["text"]) or [title], rng), True)
        places[row["_id"]] = place
        world.queries.append(Query(title.rstrip("."), TITLE, place, None, frozenset({place})))
    texts = {}
    for line in (folder / "queries.jsonl").read_text(encoding="utf-8").splitlines():
        row = json.loads(line)
        texts[row["_id"]] = row["text"]
    run: dict[str, list[int]] = {}
    for line in (folder / "run.bm25.train.top100.trec").read_text(encoding="utf-8").splitlines():
        query, _, document, *_ = line.split()
        run.setdefault(query, []).append(places[document])
    for key, relevant in claims(folder, held=False).items():
        good = frozenset(places[document] for document in relevant)
        found = tuple(run.get(key, ())[:_RUN_DEPTH])
        world.queries += [Query(texts[key], CLAIM, place, None, good, found) for place in sorted(good)]


def _add_made_queries(world: World, rng: random.Random) -> None:
    """For every document a query made of its text: a sentence, or a few rare words of one window."""
    common = Counter(word for window in world.windows for word in set(words(window)))
    for place, document in enumerate(world.documents):
        window = rng.choice(document.windows)
        text = world.windows[window]
        if rng.random() < 0.4:
            sentence = rng.choice(sentences(text) or [text])
            if 5 <= len(sentence.split()) <= 60:
                world.queries.append(Query(sentence, SENTENCE, place, window, frozenset({place})))
            continue
        found = sorted(set(re.findall(r"\w[\w-]+", text)))
        rarest = sorted(found, key=lambda word: common[word.lower().rstrip("s")])
        rarest = [word for word in rarest if word.lower() not in STOP][:10]
        if len(rarest) >= 4:
            chosen = " ".join(rng.sample(rarest, rng.choice((2, 3, 3, 4))))
            world.queries.append(Query(chosen, RARE, place, window, frozenset({place})))
