import subprocess
import sys

import pytest

from rerank_cli.engine.options import ModelOptions
from rerank_cli.errors import ModelError, UsageError
from rerank_cli.run.scoring.workers import devices
from rerank_cli.run.scoring.workers.devices import device_list, open_workers


@pytest.mark.parametrize(
    ("text", "names"),
    [
        ("cuda:0,cuda:1", ("cuda:0", "cuda:1")),
        ("0, 2", ("cuda:0", "cuda:2")),
        ("cpu,cpu", ("cpu", "cpu")),
        ("all", ("all",)),
    ],
)
def test_devices_are_numbers_or_names_with_commas_between_them(text, names):
    assert device_list(text) == names


@pytest.mark.parametrize("text", ["", "0,", "gpu", "auto", "all,0", "-1"])
def test_another_name_is_a_usage_error(text):
    with pytest.raises(UsageError, match=r"no such device \(got .*, expected "):
        device_list(text)


def test_devices_of_two_kinds_are_refused():
    with pytest.raises(UsageError, match=r"scores of different kinds of devices differ. Fix: "):
        device_list("cuda:0,cpu")


def test_the_process_of_a_run_with_workers_imports_no_torch():
    code = "import sys, rerank_cli.run.job, rerank_cli.run.scoring.workers.devices; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


@pytest.fixture
def answer(monkeypatch):
    """Sets what the process says that counts the devices; gives the devices of the workers that are started."""
    monkeypatch.setattr(devices, "Workers", lambda places: [place.device for place in places])
    return lambda code, out: monkeypatch.setattr(
        devices.subprocess, "run", lambda command, **_: subprocess.CompletedProcess(command, code, out)
    )


def test_all_is_every_device_that_torch_sees(answer):
    answer(0, b"3\n")
    assert open_workers(("all",), ModelOptions("mini")) == ["cuda:0", "cuda:1", "cuda:2"]


def test_all_where_there_is_none_is_a_usage_error(answer):
    answer(0, b"0\n")
    with pytest.raises(UsageError, match=r"--devices all: torch sees no CUDA device. Fix: "):
        open_workers(("all",), ModelOptions("mini"))


def test_a_torch_that_cannot_be_imported_is_told(answer):
    answer(1, b"")
    with pytest.raises(ModelError, match=r"--devices all: torch cannot be imported. Fix: "):
        open_workers(("all",), ModelOptions("mini"))
