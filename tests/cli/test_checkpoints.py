"""Models given by name or folder, as the command takes them: names that mean another, and settings in their files."""

import json
import shutil
from pathlib import Path

import pytest
from shell import PANDA, TINY, is_one_line, rerank, write_lines

pytestmark = pytest.mark.slow

BERT = Path(__file__).parents[1] / "models" / "parity" / "bert"
REQUEST = {"query": "what is panda?", "documents": ["hi", PANDA, "capital of France"]}
SAVED = "config_sentence_transformers.json"


@pytest.fixture
def given(tmp_path):
    return write_lines(tmp_path / "in.jsonl", [REQUEST])


@pytest.fixture
def stated(tmp_path):
    """A function: a copy of a tiny model whose file of sentence-transformers has these settings."""

    def make(**settings):
        folder = tmp_path / "stated"
        shutil.copytree(BERT, folder, dirs_exist_ok=True)
        (folder / SAVED).write_text(json.dumps({"model_type": "CrossEncoder"} | settings))
        return folder

    return make


def refused(code, *args):
    ended = rerank(*args)
    assert (ended.code, ended.out) == (code, b"")
    assert "Traceback" not in ended.err
    return ended.complaint


@pytest.mark.parametrize(
    ("name", "meant"),
    [
        ("bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3"),
        ("baai/bge-reranker-v2-m3", "BAAI/bge-reranker-v2-m3"),
        ("BAAI/bge-reranker-v2m3", "BAAI/bge-reranker-v2-m3"),
        ("bge-rerankr-base", "BAAI/bge-reranker-base"),
        ("Qwen3-Reranker-0.6B", "Qwen/Qwen3-Reranker-0.6B"),
        ("Qwen/Qwen3-Reranker-4b", "Qwen/Qwen3-Reranker-4B"),
        ("ms-marco-MiniLM-L6-v2", "cross-encoder/ms-marco-MiniLM-L6-v2"),
        ("minni", "mini"),
    ],
)
@pytest.mark.parametrize("command", ["run", "models"])
def test_a_short_or_mistyped_name_is_answered_with_the_model_it_means(given, command, name, meant):
    said = refused(5, *(["run", given, "-m", name, "-q"] if command == "run" else ["models", name]))
    assert said.startswith(f"rerank: {name}: ")
    assert said.endswith(f" Fix: {meant}, as rerank models lists it")


def test_a_name_like_no_other_gets_no_suggestion(given):
    said = refused(5, "run", given, "-m", "nobody/nothing", "-q")
    assert "as rerank models lists it" not in said


def test_a_bad_model_of_a_cascade_is_not_blamed_on_the_main_model(given):
    said = refused(5, "run", given, "-m", TINY, "--cascade", "bge-reranker-base:1", "-q")
    assert said.startswith("rerank: --cascade: bge-reranker-base: ")
    assert "--model" not in said
    assert said.endswith(" Fix: BAAI/bge-reranker-base, as rerank models lists it")


def test_a_folder_without_a_tokenizer_is_exit_5(given, tmp_path):
    for file in ("config.json", "model.safetensors"):
        (tmp_path / "bare").mkdir(exist_ok=True)
        shutil.copy(BERT / file, tmp_path / "bare")
    for command in (["run", given, "-m", tmp_path / "bare", "-q"], ["models", tmp_path / "bare"]):
        assert f"no tokenizer in {tmp_path / 'bare'}" in refused(5, *command)


def test_texts_that_are_unknown_to_the_tokenizer_are_told(tmp_path):
    unknown = {"query": "ሰላም ዓለም", "documents": ["ⵜⴰⵎⴰⵣⵉⵖⵜ ⴷ ⵜⵓⵜⵍⴰⵢⵜ " * 30]}
    ended = rerank("run", write_lines(tmp_path / "in.jsonl", [unknown]), "-m", BERT)
    assert ended.code == 0
    assert ended.err.count("tokens are unknown to the tokenizer. Fix: the model's own tokenizer") == 1


def test_the_list_of_models_fits_80_columns():
    lines = rerank("models").out.decode().splitlines()
    assert len(lines) > 20
    assert max(map(len, lines)) <= 80


def rows(*args):
    """What `rerank models` shows, by name."""
    ended = rerank("models", *args)
    assert (ended.code, ended.err) == (0, "")
    model, *lines = ended.out.decode().splitlines()
    assert max(map(len, lines)) <= 80, "the model's path alone may be longer"
    return {line[:20].strip(): line[21:] for line in (model, *lines)}


def test_a_model_is_shown_with_where_its_settings_come_from(stated):
    folder = stated(prompts={"web": "find: "}, default_prompt_name="web", activation_fn="torch.nn.Identity")
    tokenizer = json.loads((folder / "tokenizer_config.json").read_text()) | {"model_max_length": 64}
    (folder / "tokenizer_config.json").write_text(json.dumps(tokenizer))
    shown = rows(folder)
    assert shown["profile"] == "encoder  (family)"
    assert shown["max length"] == "64  (file tokenizer_config.json)"
    assert shown["query instruction"] == f"find:   (file {SAVED})"
    assert shown["activation"] == f"Identity  (file {SAVED})"
    shown = rows(folder, "--max-length", "32", "--query-instruction", "other: ")
    assert shown["max length"] == "32  (flag)"
    assert shown["query instruction"] == "other:   (flag)"
    sources = rerank("models", folder, "--json").records[0]["sources"]
    assert sources["max_length"] == "file tokenizer_config.json"
    assert rows("mini")["max length"] == "512  (built in)"
    assert rows("mini")["activation"] == "Sigmoid  (built in)"


def test_flags_about_reading_pairs_need_the_name_of_a_model():
    assert refused(2, "models", "--max-length", "64") == "rerank: --max-length: needs the NAME of a model"


def scores_of(ended):
    assert ended.code == 0
    return [result["relevance_score"] for result in ended.records[0]["results"]]


def test_scores_are_logits_if_the_checkpoint_states_so_and_a_flag_wins(given, stated):
    folder = stated(activation_fn="torch.nn.modules.linear.Identity")
    ended = rerank("run", given, "-m", folder)
    logits = scores_of(ended)
    assert logits == scores_of(rerank("run", given, "-m", BERT, "--scores", "raw", "-q"))
    said = f"rerank: {folder}: scores are logits, as its files state (--scores sigmoid: 0 to 1)"
    assert ended.err.splitlines().count(said) == 1
    sigmoids = rerank("run", given, "-m", folder, "--scores", "sigmoid")
    assert scores_of(sigmoids) == scores_of(rerank("run", given, "-m", BERT, "-q"))
    assert "as its files state" not in sigmoids.err
    one = rerank("score", REQUEST["query"], *REQUEST["documents"], "-m", folder)
    assert [record["relevance_score"] for record in one.records] == logits


def test_a_finished_output_is_complete_only_for_the_same_kind_of_score(given, stated, tmp_path):
    folder, output = stated(activation_fn="torch.nn.Identity"), tmp_path / "out.jsonl"
    command = ["run", given, "-m", folder, "-o", output]
    assert rerank(*command).code == 0
    again = rerank(*command)
    assert (again.code, "already complete" in again.err) == (0, True)
    assert rerank(*command, "--scores", "sigmoid", "-q").code == 6


def test_an_unfinished_run_keeps_its_kind_of_score(stated, tmp_path):
    records = [{"query": f"panda {n}", "documents": ["hi", PANDA]} for n in range(40)]
    given = write_lines(tmp_path / "in.jsonl", [*records, "{ broken"])
    folder, output = stated(activation_fn="torch.nn.Identity"), tmp_path / "out.jsonl"
    command = ["run", given, "-m", folder, "-o", output, "--chunk-pairs", "10", "-q"]
    assert rerank(*command).code == 4
    write_lines(tmp_path / "in.jsonl", [*records, records[0]])
    assert "scores given None → sigmoid" in refused(6, *command, "--scores", "sigmoid")
    assert rerank(*command).code == 0
    whole = tmp_path / "whole.jsonl"
    assert rerank("run", given, "-m", folder, "-o", whole, "--chunk-pairs", "10", "-q").code == 0
    assert output.read_bytes() == whole.read_bytes()


def test_a_length_beyond_512_is_reported_in_one_line_and_used_if_asked_for(given):
    model = BERT.parent / "gemma"

    def said(*flags):
        ended = rerank("run", given, "-m", model, *flags)
        assert ended.code == 0
        return [line for line in ended.err.splitlines() if "max length" in line]

    assert said() == [f"rerank: {model}: max length 512, the model could read 8,108 (--max-length)"]
    assert said("--max-length", "600") == []


def test_pickled_code_is_exit_5_and_never_run(given, stated):
    folder = stated()
    (folder / "model.safetensors").unlink()
    (folder / "pytorch_model.bin").write_bytes(b"cposix\nmkdir\n(S'/tmp/must-not-be-made'\ntR.")
    said = refused(5, "run", given, "-m", folder, "-q")
    assert is_one_line(said + "\n")
    assert "never run" in said
    assert not Path("/tmp/must-not-be-made").exists()
