"""Jobs with workers in a Ray cluster of several raylets on this machine: whatever dies or joins, the same bytes."""

import gc
import json
import os
import re
import signal
import subprocess
import sys
import tempfile
import time
from contextlib import contextmanager, suppress
from pathlib import Path

import on_ray
import orjson
import pytest
from elsewhere import RowSession
from instant import config, go
from on_ray import GATES, KILLS
from processes import RERANK, TINY, environment, foreground

pytestmark = [
    pytest.mark.slow,
    pytest.mark.filterwarnings("ignore::ResourceWarning"),  # files that Ray's own Cluster leaves open
    pytest.mark.skipif(sys.platform != "linux", reason="Ray's cluster of several raylets is for Linux"),
]

TIMEOUT = 400  # seconds; a busy machine is no failure
CHUNKS = 8
SETTINGS = {
    "PYTHONPATH": str(Path(on_ray.__file__).parent),  # where workers find the session
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_AUTH_MODE": "disabled",
}


@pytest.fixture(scope="module")
def cluster():
    """A head without CPUs, which is the node of the jobs; every node of a test is removed after it."""
    with pytest.MonkeyPatch.context() as patch, tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as folder:
        # Ray notes the cluster's address in its usual folder, whatever `temp_dir`, and fails where Ray has never run.
        (Path(folder) / "ray").mkdir()
        for name, value in (SETTINGS | {"RAY_TMPDIR": folder}).items():
            patch.setenv(name, value)
        from ray.cluster_utils import Cluster

        found = Cluster(
            initialize_head=True,
            head_node_args={"num_cpus": 0, "temp_dir": folder, "include_dashboard": False, **_place("head")},
        )
        processes = [one.process for kind in found.head_node.all_processes.values() for one in kind]
        yield found
        found.shutdown()
        gc.collect()
        assert all(process.poll() is not None for process in processes)


def _place(name):
    """On the loopback device, but not at 127.0.0.1, for which Ray would take the machine's own address."""
    return {"node_name": name, "node_ip_address": "127.0.0.2", "object_store_memory": 80_000_000}


@pytest.fixture
def node(cluster):
    """Adds a node with one CPU, given its name; all are removed after the test."""
    yield lambda name: cluster.add_node(num_cpus=1, **_place(name))
    for one in list(cluster.worker_nodes):
        cluster.remove_node(one)


@pytest.fixture(scope="module")
def given(tmp_path_factory):
    path = tmp_path_factory.mktemp("given") / "in.jsonl"
    records = [{"query": f"q{i}", "documents": [f"{i}.{n}." for n in range(10)]} for i in range(21 * CHUNKS)]
    path.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    return path


@pytest.fixture(scope="module")
def whole(given, tmp_path_factory):
    output = tmp_path_factory.mktemp("whole") / "out.jsonl"
    go(config(given, output, chunk_pairs=210), RowSession())
    return output.read_bytes()


@pytest.fixture
def folder(given, tmp_path):
    """Of one job: its input, and all gates open."""
    (tmp_path / "in.jsonl").symlink_to(given)
    for gate in GATES:
        (tmp_path / gate).touch()
    return tmp_path


@contextmanager
def job(address, folder, least, most, **variables):
    """A job with so many workers, as a process and a process group of its own."""
    process = subprocess.Popen(
        [sys.executable, on_ray.__file__, address, str(folder), str(least), str(most)],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        preexec_fn=foreground,
        start_new_session=True,
        env=environment(SETTINGS | variables),
    )
    try:
        yield process
    finally:
        process.kill()
        process.communicate()


def ended(process):
    """What a job told when it ended well, and its messages."""
    out, err = process.communicate(timeout=TIMEOUT)
    assert process.returncode == 0, err
    return json.loads(out), err


def until(condition, process):
    end = time.monotonic() + TIMEOUT
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        assert process.poll() is None, process.communicate()
        time.sleep(0.02)


def waiting_at(gate):
    """How many workers have come to a gate."""
    return len(list(gate.parent.glob(f"at-{gate.name}*")))


def test_slices_of_an_actor_that_is_killed_are_scored_by_another(cluster, node, folder, whole):
    node("a")
    node("b")
    (folder / KILLS).touch()
    with job(cluster.address, folder, 2, 2) as process:
        _, err = ended(process)
    assert (folder / "out.jsonl").read_bytes() == whole
    assert not (folder / KILLS).exists()
    died, again = err.splitlines()
    assert died.endswith(" died; workers left: 1")
    assert again.endswith(" is started again (1 of 2 times)")


def test_a_node_is_added_while_the_job_runs_and_another_is_lost(cluster, node, folder, whole):
    first, second = (folder / gate for gate in GATES)
    first.unlink()
    second.unlink()
    lost = node("lost")
    with job(cluster.address, folder, 1, 2) as process:
        until(lambda: waiting_at(first), process)  # the first worker stands at slice 2 of 8
        node("added")
        until(lambda: waiting_at(second), process)  # the second at slice 6
        cluster.remove_node(lost, allow_graceful=False)
        second.touch()
        until(lambda: waiting_at(first) == 2, process)  # and at slice 2 in place of the first
        first.touch()
        told, err = ended(process)
    assert (folder / "out.jsonl").read_bytes() == whole
    gone, waits = err.splitlines()
    how = "(ended with its node|could not be reached any more)"
    assert re.fullmatch(rf"rerank: worker \d of 2 \(cpu on lost\) {how}; workers left: 1", gone)
    assert re.fullmatch(r"rerank: worker \d of 2 \(cpu\) waits for another place", waits)
    one, two = sorted(told["workers"], key=lambda worker: worker["pairs"])
    assert (one["state"], one["node"]) == ("waiting", None)
    assert (two["state"], two["node"], two["device"]) == ("ready", "added", "cpu")
    assert two["pairs"] >= 210 * 5


def test_a_job_that_is_killed_leaves_no_workers_and_goes_on_when_started_again(cluster, node, folder, whole):
    node("a")
    node("b")
    (folder / GATES[1]).unlink()
    with job(cluster.address, folder, 2, 2) as process:
        until((folder / "out.jsonl.checkpoint").exists, process)
        process.send_signal(signal.SIGKILL)
    (folder / GATES[1]).touch()
    with job(
        cluster.address, folder, 2, 2
    ) as process:  # there is room for two workers only when the first two are gone
        told, _ = ended(process)
    assert told["resumed"] > 0
    assert (folder / "out.jsonl").read_bytes() == whole


def test_a_cluster_that_the_job_started_ends_with_it_when_its_process_group_is_stopped(folder):
    gate = folder / GATES[0]
    gate.unlink()
    with tempfile.TemporaryDirectory(dir="/tmp", prefix="ray") as scratch:
        with job("local", folder, 1, 1, RAY_TMPDIR=scratch) as process:
            until(lambda: waiting_at(gate), process)
            assert len(marked(scratch)) > 3
            os.killpg(process.pid, signal.SIGTERM)
            gate.touch()
            out, err = process.communicate(timeout=TIMEOUT)
        assert process.returncode == -signal.SIGTERM
        assert (out, err) == ("", "rerank: SIGTERM, finishing the current row (again to quit at once)\n")
        end = time.monotonic() + TIMEOUT
        while marked(scratch):
            assert time.monotonic() < end, marked(scratch)
            time.sleep(0.05)
    assert (folder / "out.jsonl.checkpoint").exists()


def marked(text):
    """Processes with this text in their environment."""
    found = []
    for path in Path("/proc").glob("[0-9]*/environ"):
        with suppress(OSError):
            if text.encode() in path.read_bytes():
                found.append(path.parent.name)
    return found


def rerank(*args, **variables):
    ended = subprocess.run(
        [RERANK, "run", *map(str, args)],
        capture_output=True,
        text=True,
        env=environment(variables),
        timeout=TIMEOUT,
        check=False,
        preexec_fn=foreground,
    )
    return ended.returncode, ended.stdout, ended.stderr


def test_the_command_has_the_bytes_of_one_process_with_cascade_cache_and_verification(cluster, node, tmp_path):
    node("a")
    node("b")
    given = tmp_path / "in.jsonl"
    texts = [f"a bear {number}" for number in range(7)]
    records = [{"id": i, "query": f"panda {i}", "documents": [texts[i * j % 7] for j in range(6)]} for i in range(40)]
    given.write_bytes(b"".join(orjson.dumps(record, option=orjson.OPT_APPEND_NEWLINE) for record in records))
    small = f"{TINY}:3"
    flags = ["-m", "mini", "--cascade", small, "--threads", 1, "--chunk-pairs", 48, "--verify", 5, "--max-length", 32]
    assert rerank(given, *flags, "-q", "-o", tmp_path / "one.jsonl")[0] == 0
    flags += ["--cache", tmp_path / "scores.sqlite", "--ray", cluster.address, "--workers", 2, "--progress", "json"]
    code, out, err = rerank(given, *flags, "-o", tmp_path / "two.jsonl")
    assert (code, out) == (0, ""), err
    lines = [json.loads(line) for line in err.splitlines()]
    assert (tmp_path / "two.jsonl").read_bytes() == (tmp_path / "one.jsonl").read_bytes()
    assert {one["node"] for one in lines[-2]["workers"]} == {"a", "b"}


def test_other_versions_on_a_node_are_refused_in_one_line(cluster, node, tmp_path):
    node("a")
    known = tmp_path / "transformers-0.0.1.dist-info"
    known.mkdir()
    (known / "METADATA").write_text("Metadata-Version: 2.1\nName: transformers\nVersion: 0.0.1\n")
    (tmp_path / "in.jsonl").write_text('{"query": "q", "documents": ["a"]}\n')
    flags = ["-q", "-m", TINY, "-o", tmp_path / "out.jsonl", "--ray", cluster.address, "--workers", 1]
    code, _, err = rerank(tmp_path / "in.jsonl", *flags, PYTHONPATH=os.fspath(tmp_path))
    assert (code, err.count("\n")) == (5, 1)
    assert err.startswith("rerank: node a: other versions than where the job was started: transformers ")
    assert " (there 0.0.1); scores could differ. Fix: " in err
