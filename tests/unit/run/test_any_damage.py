"""Whatever happens to the files of an unfinished run: the same bytes in the end, or a refusal with the way out."""

import shutil
from pathlib import Path

import orjson
import pytest
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st
from instant import config, go, kill

from rerank_cli.choices import OutputFormat, Resume
from rerank_cli.errors import RefusedError

pytestmark = pytest.mark.slow

RECORDS = 40
KINDS = ["out.jsonl", "out.jsonl.gz", "out.parquet"]
patiently = settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])


class Unfinished:
    """A run of each kind that died, its files, and what it would have written."""

    def __init__(self, folder):
        self._folder = folder
        self.given = folder / "in.jsonl"
        rows = [{"query_id": i, "query": f"q{i}", "text": f"{i} {n}"} for i in range(RECORDS) for n in range(3)]
        self.given.write_bytes(b"".join(orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE) for row in rows))
        self.whole, self.left = {}, {}
        for name in KINDS:
            go(self.plan(folder / name))
            self.whole[name] = (folder / name).read_bytes()
            (folder / name).unlink()
            kill(self.plan(folder / name), 10)
            self.left[name] = {
                path: path.read_bytes() for path in folder.rglob("*") if path.is_file() and path != self.given
            }
            self.clear()

    def plan(self, output, **more):
        return config(self.given, output, format=OutputFormat.PAIRS, **more)

    def clear(self):
        for path in set(self._folder.iterdir()) - {self.given}:
            shutil.rmtree(path) if path.is_dir() else path.unlink()

    def lay_out(self, name):
        """The files as the dead run left them."""
        self.clear()
        for path, content in self.left[name].items():
            path.parent.mkdir(exist_ok=True)
            path.write_bytes(content)
        return self._folder / name

    def files(self, name, part):
        """Files of one sort, the unfinished output or the checkpoint or what else lies there."""
        return sorted(path for path in self.left[name] if part in str(path.relative_to(self._folder)))


@pytest.fixture(scope="module")
def unfinished(tmp_path_factory):
    return Unfinished(tmp_path_factory.mktemp("unfinished"))


def goes_on_or_refuses(unfinished, name, output):
    """True if it went on. A refusal leaves every file as it is, and --restart helps."""
    before = contents(output)
    went_on, refusal = True, ""
    try:
        go(unfinished.plan(output))
    except RefusedError as error:
        went_on, refusal = False, str(error)
    if not went_on:
        assert "Fix: --restart" in refusal
        assert contents(output) == before
        go(unfinished.plan(output, resume=Resume.NEVER))
    assert output.read_bytes() == unfinished.whole[name]
    assert {path.name for path in output.parent.iterdir()} == {name, "in.jsonl"}
    return went_on


def contents(output):
    return {path: path.read_bytes() for path in output.parent.rglob("*") if path.is_file()}


def committed_bytes(unfinished, name):
    (path,) = unfinished.files(name, f"{name}.checkpoint")
    return orjson.loads(orjson.loads(unfinished.left[name][path])["checkpoint"])["output"]["length"]


@patiently
@given(data=st.data(), name=st.sampled_from(KINDS[:2]))
def test_any_cut_of_the_unfinished_output(unfinished, data, name):
    (path,) = unfinished.files(name, f"{name}.partial")
    content = unfinished.left[name][path]
    at = data.draw(st.integers(0, len(content)))
    torn = data.draw(st.binary(max_size=200))
    output = unfinished.lay_out(name)
    path.write_bytes(content[:at] + torn)
    kept = (content[:at] + torn)[: committed_bytes(unfinished, name)] == content[: committed_bytes(unfinished, name)]
    assert goes_on_or_refuses(unfinished, name, output) == kept


@patiently
@given(data=st.data(), name=st.sampled_from(KINDS))
def test_any_flipped_bit_in_the_unfinished_output(unfinished, data, name):
    path = data.draw(st.sampled_from(unfinished.files(name, f"{name}.partial")))
    content = bytearray(unfinished.left[name][path])
    assume(content)
    at = data.draw(st.integers(0, len(content) - 1))
    content[at] ^= 1 << data.draw(st.integers(0, 7))
    output = unfinished.lay_out(name)
    path.write_bytes(content)
    parts = unfinished.files(name, f"{name}.partial")
    length = committed_bytes(unfinished, name)
    counts = parts.index(path) < length if name.endswith("parquet") else at < length
    assert goes_on_or_refuses(unfinished, name, output) == (not counts)


@patiently
@given(data=st.data(), name=st.sampled_from(KINDS))
def test_any_damage_to_the_checkpoint(unfinished, data, name):
    (path,) = unfinished.files(name, f"{name}.checkpoint")
    content = unfinished.left[name][path]
    damaged = data.draw(st.one_of(st.integers(0, len(content) - 1), st.binary(max_size=300)))
    if isinstance(damaged, int):
        flip = data.draw(st.booleans())
        rest = bytes([content[damaged] ^ 2]) + content[damaged + 1 :] if flip else b""
        damaged = content[:damaged] + rest
    output = unfinished.lay_out(name)
    path.write_bytes(damaged)
    assert not goes_on_or_refuses(unfinished, name, output)


@patiently
@given(data=st.data(), name=st.sampled_from(KINDS), torn=st.binary(max_size=100))
def test_any_damage_to_the_log_of_queries_and_whatever_lies_about(unfinished, data, name, torn):
    (path,) = unfinished.files(name, f"{name}.queries")
    content = unfinished.left[name][path]
    output = unfinished.lay_out(name)
    path.write_bytes(content[: data.draw(st.integers(0, len(content)))] + torn)
    for other in (".checkpoint.new", ".journal", ".lock"):
        Path(f"{output}{other}").write_bytes(torn)
    assert goes_on_or_refuses(unfinished, name, output)


@pytest.mark.parametrize("name", KINDS)
def test_the_files_as_they_were_left_are_gone_on_with(unfinished, name):
    assert goes_on_or_refuses(unfinished, name, unfinished.lay_out(name))
