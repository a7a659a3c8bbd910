"""The recipes of docs/scale.md are what their programs read, and name as many shards as jobs."""

import re
import subprocess
from pathlib import Path

import yaml

PAGE = (Path(__file__).parents[2] / "docs" / "scale.md").read_text(encoding="utf-8")


def blocks(language):
    return re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)


def test_the_indexed_job_has_a_pod_for_every_shard():
    (text,) = blocks("yaml")
    job = yaml.safe_load(text)
    assert (job["kind"], job["spec"]["completionMode"]) == ("Job", "Indexed")
    args = job["spec"]["template"]["spec"]["containers"][0]["args"]
    assert args[args.index("--shard") + 1] == f"auto/{job['spec']['completions']}"


def test_the_slurm_array_has_a_task_for_every_shard():
    (script,) = blocks("bash")
    assert subprocess.run(["bash", "-n"], input=script, text=True, check=False).returncode == 0
    last = re.search(r"--array=0-(\d+)", script)[1]
    assert f"--shard auto/{int(last) + 1} " in script
