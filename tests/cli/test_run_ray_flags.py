"""`--ray` and `--workers` without a cluster: what is refused, and how a worker finds its model."""

import subprocess
import sys

import pytest
from processes import TINY
from shell import is_one_line, rerank

from rerank_cli.cli.flags.declare import with_values
from rerank_cli.cli.status import by_node
from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.models.checkpoint import resolve
from rerank_cli.run.scoring.workers.ray_actor import difference, versions
from rerank_cli.run.scoring.workers.ray_places import RayOptions, found_anywhere, open_there
from rerank_cli.run.scoring.workers.ray_transport import Needs


@pytest.mark.parametrize(
    ("given", "taken"),
    [
        (["in.jsonl", "--ray"], ["in.jsonl", "--ray="]),
        (["--ray", "in.jsonl"], ["--ray=", "in.jsonl"]),
        (["--ray", "--workers", "2"], ["--ray=", "--workers", "2"]),
        (["--ray", "auto", "in.jsonl"], ["--ray", "auto", "in.jsonl"]),
        (["--ray", "head-0.ray:6379"], ["--ray", "head-0.ray:6379"]),
        (["--ray", "[::1]:6379"], ["--ray", "[::1]:6379"]),
        (["--ray=local"], ["--ray=local"]),
        (["--", "--ray"], ["--", "--ray"]),
    ],
)
def test_the_word_after_ray_is_its_value_only_if_it_is_an_address(given, taken):
    assert with_values(given) == taken


@pytest.mark.parametrize(
    ("address", "workers", "device", "message"),
    [
        (
            "in.jsonl",
            None,
            "auto",
            r"--ray in\.jsonl: no address of a Ray cluster \(expected HOST:PORT, auto or local\)",
        ),
        ("ray://head:10001", None, "auto", r"--ray ray://head:10001: Ray Client passes .*Fix: run on a node"),
        ("local", "0", "auto", r"--workers 0: expected a number from 1, or MIN\.\.MAX"),
        ("local", "4..2", "auto", r"--workers 4\.\.2: expected"),
        ("local", "2..", "auto", r"--workers 2\.\.: expected"),
        ("local", None, "cuda:1", r"--device cuda:1 with --ray: Ray chooses the card. Fix: --device cuda, or cpu"),
        ("local", None, "mps", r"--device mps with --ray"),
    ],
)
def test_what_cannot_be_honoured_is_refused(address, workers, device, message):
    with pytest.raises(UsageError, match=message):
        RayOptions.parse(address, workers, device, cascade=False)


def test_workers_are_a_number_or_a_range(monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    found = [RayOptions.parse("", text, "auto", cascade=False) for text in (None, "3", "2..5")]
    assert [(one.least, one.most) for one in found] == [(None, None), (3, 3), (2, 5)]


def test_an_address_of_ray_client_in_the_environment_is_refused_too(monkeypatch):
    monkeypatch.setenv("RAY_ADDRESS", "ray://head:10001")
    with pytest.raises(UsageError, match=r"RAY_ADDRESS=ray://head:10001: Ray Client"):
        RayOptions.parse("auto", None, "auto", cascade=False)


def test_without_ray_the_extra_is_named(monkeypatch):
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(UsageError, match=r"--ray needs Ray. Fix: pip install 'rerank-cli\[ray\]'"):
        RayOptions.parse("local", None, "auto", cascade=False)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--workers", "2"], "--workers needs --ray. Fix: --devices for workers on this machine, or --ray"),
        (["--devices", "cpu", "--ray"], "--devices and --ray: give one of them"),
    ],
)
def test_flags_that_do_not_go_together(requests_file, flags, message):
    ended = rerank("run", requests_file, "-m", TINY, *flags)
    assert (ended.code, ended.err) == (2, f"rerank: {message}\n")


def test_an_address_where_nothing_answers_is_one_line_at_once(requests_file, tmp_path):
    flags = ["-m", TINY, "-q", "-o", tmp_path / "out.jsonl", "--ray", "127.0.0.2:1"]
    ended = rerank("run", requests_file, *flags)
    assert ended.code == 5
    assert ended.err.startswith("rerank: --ray 127.0.0.2:1: nothing answers at 127.0.0.2 ")
    assert is_one_line(ended.err)


def test_a_model_folder_is_found_from_another_folder_and_must_hold_the_same_model(tmp_path, monkeypatch):
    (tmp_path / "model").symlink_to(TINY)
    monkeypatch.chdir(tmp_path)
    revision = resolve("model").revision
    name, on_hub, adapter, _ = found_anywhere(ModelOptions("model"), revision)
    assert (name, on_hub, adapter) == (str(tmp_path / "model"), None, None)
    with pytest.raises(ModelError, match=r"another model than where the job was started \(.*, there r0\). Fix: "):
        open_there(ModelOptions("model"), name, None, None, "r0")


def test_a_model_of_the_hub_is_found_by_its_commit():
    found = found_anywhere(ModelOptions("BAAI/bge-reranker-v2-m3", revision="main"), "abc123+def")
    assert found == ("BAAI/bge-reranker-v2-m3", "abc123", None, "abc123+def")


def test_other_versions_are_named_and_another_build_is_none():
    assert difference(versions()) == ""
    assert "+" not in versions()["torch"]
    told = difference(versions() | {"torch": "1.0", "tokenizers": "2.0"})
    assert f"torch {versions()['torch']} (there 1.0), tokenizers " in told


def test_what_a_worker_takes_in_words():
    assert [str(Needs(1)), str(Needs(4, 1)), str(Needs(0, 0.25))] == ["1 CPU", "1 GPU and 4 CPUs", "0.25 GPU"]


def test_status_groups_workers_by_node():
    worker = {"device": "cuda", "queue": 2, "pairs": 1000}
    workers = [
        worker | {"node": "b", "state": "ready"},
        worker | {"node": None, "state": "waiting", "pairs": 0},
        worker | {"node": "b", "state": "ready", "pairs": 500},
    ]
    assert list(by_node(workers)) == ["b: 2 ready (cuda), 1,500 pairs", "no node yet: 1 waiting (cuda), 0 pairs"]


def test_nothing_of_ray_is_imported_otherwise():
    code = "import sys, rerank_cli.run.job, rerank_cli.run.scoring.workers.devices; sys.exit('ray' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
