"""What a disk can do to a run: fill up, refuse, vanish. One line, exit 7, and the same command goes on."""

import os
import resource
import shutil
import subprocess
from contextlib import contextmanager
from pathlib import Path

import pytest
from real_runs import begun, command, ended, is_one_line, names, until

pytestmark = pytest.mark.slow


@contextmanager
def small_disk(folder, size):
    """A file system of its own; skips where this process may not mount one."""
    folder.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", folder], capture_output=True)
    if mounted.returncode:
        pytest.skip(f"cannot mount a small file system here: {mounted.stderr.decode().strip()}")
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", folder], check=True)


def remount(folder, options):
    subprocess.run(["mount", "-o", f"remount,{options}", folder], check=True)


@pytest.mark.parametrize("suffix", [".jsonl", ".parquet"])
def test_a_full_disk_is_exit_7_and_with_more_room_the_same_command_goes_on(given, whole, tmp_path, suffix):
    with small_disk(tmp_path / "disk", "160k") as disk:
        words = command(given, disk / f"out{suffix}")
        code, err = ended(words)
        assert (code, is_one_line(err.replace("are kept; fix", "are kept, fix"))) == (7, True)
        assert "No space left on device" in err
        assert not (disk / f"out{suffix}").exists()
        remount(disk, "size=64m")
        assert ended([*words, "--resume", "require"]) == (0, "")
        assert (disk / f"out{suffix}").read_bytes() == whole(suffix)
        assert names(disk) == [f"out{suffix}"]


@pytest.mark.parametrize("suffix", [".jsonl", ".jsonl.gz", ".parquet"])
def test_a_limit_on_file_sizes_is_exit_7_and_without_it_the_same_command_goes_on(given, whole, tmp_path, suffix):
    words = command(given, tmp_path / f"out{suffix}")
    size = len(whole(suffix)) // 2
    code, err = ended(words, preexec_fn=lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (size, size)))
    assert (code, is_one_line(err)) == (7, True)
    assert "File too large" in err
    assert not (tmp_path / f"out{suffix}").exists()
    assert ended(words) == (0, "")
    assert (tmp_path / f"out{suffix}").read_bytes() == whole(suffix)
    assert names(tmp_path) == [f"out{suffix}"]


def test_a_file_system_that_turns_read_only_is_exit_7_and_the_same_command_goes_on(given, whole, tmp_path):
    with small_disk(tmp_path / "disk", "64m") as disk:
        words = command(given, disk / "out.jsonl")
        with begun(words) as process:
            until((disk / "out.jsonl.checkpoint").exists)
            process.send_signal(19)  # SIGSTOP: nothing is open for writing in the moment of a commit
            subprocess.run(["mount", "-o", "remount,ro", disk], capture_output=True, check=False)
            process.send_signal(18)
            process.communicate(timeout=180)
        remount(disk, "rw")
        assert process.returncode in (0, 7)  # a file that is open keeps some file systems writable
        assert ended(words)[0] == 0
        assert (disk / "out.jsonl").read_bytes() == whole(".jsonl")
        assert names(disk) == ["out.jsonl"]


def test_a_folder_that_vanishes_under_a_run_is_exit_7(given, tmp_path):
    folder = tmp_path / "work"
    folder.mkdir()
    with begun(command(given, folder / "out.jsonl")) as process:
        until((folder / "out.jsonl.checkpoint").exists)
        shutil.rmtree(folder)
        _, err = process.communicate(timeout=180)
    assert (process.returncode, is_one_line(err.decode())) == (7, True)


@pytest.mark.parametrize("flag", ["--summary", "--errors"])
def test_a_side_file_that_takes_nothing_is_exit_7(given, tmp_path, flag):
    bad = tmp_path / "in.jsonl"
    bad.write_bytes(b"bad\n" + given.read_bytes())
    code, err = ended(command(bad, tmp_path / "out.jsonl", "--on-error", "skip", flag, "/dev/full"))
    assert (code, "No space left on device" in err, "Traceback" in err) == (7, True, False)


WITHOUT_PRIVILEGE = ["setpriv", "--bounding-set=-dac_override,-dac_read_search"]


@pytest.mark.parametrize("closed", ["folder", "output", "parts", "checkpoint", "input"])
def test_what_may_not_be_opened_is_one_line_and_nothing_is_lost(given, whole, tmp_path, closed):
    """Root may write anywhere, unless it gives up that privilege."""
    prefix = WITHOUT_PRIVILEGE if os.geteuid() == 0 else []
    if subprocess.run([*prefix, "true"], capture_output=True, check=False).returncode:
        pytest.skip("cannot give up the privileges of root here")
    folder = tmp_path / "work"
    folder.mkdir()
    output = folder / ("out.parquet" if closed == "parts" else "out.jsonl")
    words = command(folder / "in.jsonl", output)
    shutil.copy(given, folder / "in.jsonl")
    with begun(words):
        until(Path(f"{output}.checkpoint").exists)
    names = {"folder": ".", "input": "in.jsonl", "checkpoint": "out.jsonl.checkpoint", "output": "out.jsonl.partial"}
    shut = folder / names.get(closed, "out.parquet.partial")
    mode = shut.stat().st_mode
    shut.chmod(0o500 if shut.is_dir() else 0)
    try:
        code, err = ended([*prefix, *words])
    finally:
        shut.chmod(mode)
    assert (code, is_one_line(err)) == ({"input": 4, "checkpoint": 6}.get(closed, 7), True)
    assert ended([*words, "--resume", "require"]) == (0, "")
    assert output.read_bytes() == whole(output.suffix)
