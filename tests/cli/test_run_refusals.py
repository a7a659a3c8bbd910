"""What a run refuses before it costs time: one line on stderr, an exit code, and no file touched."""

import os

import pytest
from shell import TINY, is_one_line, rerank, write_lines

pytestmark = pytest.mark.slow


def refused(*args, **settings):
    """A quiet run that must fail with one line and no traceback."""
    ended = rerank("run", *args, "-q", **settings)
    assert is_one_line(ended.err)
    assert ended.err.startswith("rerank: ")
    assert "Traceback" not in ended.err
    assert ended.out == b""
    return ended


def test_a_missing_input_is_exit_4(tmp_path):
    ended = refused(tmp_path / "none.jsonl")
    assert ended.code == 4
    assert "none.jsonl: there is no such file" in ended.err


def test_a_missing_second_input_shows_before_the_first_is_read(requests_file, tmp_path):
    assert refused(requests_file, tmp_path / "none.jsonl", "-m", "/no/such/model").code == 4


def test_a_folder_as_input_is_exit_4(tmp_path):
    assert refused(tmp_path).code == 4


def test_a_cut_gzip_file_is_exit_4(tmp_path):
    (tmp_path / "cut.gz").write_bytes(b"\x1f\x8b\x08\x00\x00\x00\x00\x00\x00\x03\xab\x56\x2a")
    assert refused(tmp_path / "cut.gz").code == 4


def test_a_model_folder_that_is_not_there_is_exit_5(requests_file):
    ended = refused(requests_file, "-m", "/no/such/model")
    assert ended.code == 5
    assert "/no/such/model" in ended.err


def test_a_hub_model_that_is_not_on_disk_is_exit_5_offline(requests_file, tmp_path):
    ended = refused(requests_file, "-m", "nobody/nothing", env={"HF_HOME": str(tmp_path)})
    assert ended.code == 5
    assert "nobody/nothing" in ended.err


@pytest.mark.parametrize("name", ["out.jsonl", "out.parquet"])
def test_an_output_that_exists_is_exit_6_and_stays_as_it_is(requests_file, tmp_path, name):
    (tmp_path / name).write_bytes(b"dear to somebody")
    ended = refused(requests_file, "-m", TINY, "-o", tmp_path / name)
    assert ended.code == 6
    assert "--overwrite" in ended.err
    assert (tmp_path / name).read_bytes() == b"dear to somebody"


def test_overwrite_replaces_an_output(requests_file, tmp_path):
    (tmp_path / "out.jsonl").write_bytes(b"dear to nobody")
    ended = rerank("run", requests_file, "-m", TINY, "-q", "-o", tmp_path / "out.jsonl", "--overwrite")
    assert ended.code == 0
    assert (tmp_path / "out.jsonl").read_bytes().count(b"\n") == 2


def untouched(path, *args, **settings):
    before = path.read_bytes()
    ended = refused(*args, **settings)
    assert path.read_bytes() == before
    return ended


@pytest.mark.parametrize("link", ["itself", "symbolic", "hard"])
def test_an_output_that_is_the_input_is_exit_6(tmp_path, link):
    source = tmp_path / "in.jsonl"
    write_lines(source, [{"query": "q", "documents": ["a"]}])
    output = source if link == "itself" else tmp_path / "link.jsonl"
    if link == "symbolic":
        output.symlink_to(source)
    if link == "hard":
        output.hardlink_to(source)
    assert untouched(source, source, "-m", TINY, "-o", output, "--overwrite").code == 6


def test_errors_written_over_the_input_are_refused(tmp_path):
    source = tmp_path / "in.jsonl"
    write_lines(source, [{"query": "q", "documents": ["a"]}])
    flags = ["--on-error", "skip", "--errors", source]
    assert untouched(source, source, "-m", "/no/such/model", "-o", tmp_path / "out.jsonl", *flags).code == 6


def test_errors_written_over_the_output_are_refused(requests_file, tmp_path):
    out = tmp_path / "out.jsonl"
    ended = refused(requests_file, "-m", "/no/such/model", "-o", out, "--on-error", "skip", "--errors", out)
    assert ended.code in (2, 6)


def test_a_summary_written_over_the_input_is_refused(tmp_path):
    source = tmp_path / "in.jsonl"
    write_lines(source, [{"query": "q", "documents": ["a"]}])
    ended = untouched(source, source, "-m", "/no/such/model", "-o", tmp_path / "out.jsonl", "--summary", source)
    assert ended.code == 6


@pytest.mark.parametrize("flags", [["-o"], ["--on-error=skip", "--errors"], ["--summary"]])
def test_a_file_whose_folder_is_not_there_is_exit_7_before_the_model_is_loaded(requests_file, tmp_path, flags):
    ended = refused(requests_file, "-m", "/no/such/model", *flags, tmp_path / "none" / "file")
    assert ended.code == 7
    assert str(tmp_path / "none") in ended.err


def test_an_output_below_a_file_is_exit_7(requests_file):
    assert refused(requests_file, "-m", TINY, "-o", f"{requests_file}/out.jsonl").code == 7


def test_a_folder_as_output_that_the_input_is_in_is_exit_6(requests_file, tmp_path):
    ended = refused(requests_file, "-m", TINY, "-o", tmp_path)
    assert ended.code == 6
    assert "would be written while it is read as an input" in ended.err


@pytest.mark.skipif(os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder_is_exit_7(requests_file, tmp_path):
    folder = tmp_path / "closed"
    folder.mkdir(mode=0o500)
    assert refused(requests_file, "-m", TINY, "-o", folder / "out.jsonl").code == 7


@pytest.mark.parametrize(
    "flags", [["--format", "trec", "-o", "x.parquet"], ["-", "-"], ["--errors", "x"], ["--summary", "-"]]
)
def test_flags_that_do_not_go_together_are_exit_2(requests_file, flags, tmp_path):
    assert refused(requests_file, "-m", "/no/such/model", *flags, cwd=tmp_path).code == 2


@pytest.mark.parametrize("flags", [["--nope"], ["--top-n", "0"], ["--scores", "loud"], ["--max-length", "x"]])
def test_a_bad_flag_is_exit_2_and_one_line(flags):
    ended = rerank("run", *flags)
    assert ended.code == 2
    assert is_one_line(ended.err)
    assert flags[0] in ended.err


def test_only_debug_shows_a_traceback_and_the_exit_code_stays(tmp_path):
    ended = rerank("run", tmp_path / "none.jsonl", "--debug")
    assert "Traceback" in ended.err
    assert "there is no such file" in ended.complaint
    assert ended.code == 4


@pytest.mark.parametrize("place", ["input", "model", "output"])
def test_markup_and_escapes_in_names_are_shown_and_not_obeyed(requests_file, tmp_path, place):
    name = "[bold]\x1b[31mred[/bold]"
    args = {
        "input": [name],
        "model": [requests_file, "-m", name],
        "output": [requests_file, "-o", f"{tmp_path}/{name}/out"],
    }
    ended = refused(*args[place])
    assert "[bold]" in ended.err
    assert "[/bold]" in ended.err
    assert "\x1b" not in ended.err


@pytest.mark.parametrize("tokens", ["0", "many", "-1"])
def test_a_row_of_no_number_of_tokens_is_exit_2(requests_file, tokens):
    ended = refused(requests_file, "--batch-tokens", tokens)
    assert ended.code == 2
    assert f"--batch-tokens {tokens}: expected auto or a whole number from 1" in ended.err


def test_float8_without_a_card_that_has_it_is_exit_2(requests_file):
    ended = refused(requests_file, "-m", "mini", "--device", "cpu", "--quantize", "fp8")
    assert ended.code == 2
    assert "--quantize fp8: needs a CUDA card with float8" in ended.err
