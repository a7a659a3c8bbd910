"""Do two installations of rerank write the same bytes? Run both on the same inputs and compare every output file.

    python benchmarks/same_bytes.py OLD/.venv/bin/rerank NEW/.venv/bin/rerank

Runs every input shape, output format and reading command on `sample_data/`, the parity checkpoints with the options of
their reference scores, and the commands of the cookbook. Prints a line for each case that differs, then one JSON line.
Figures that are times (summaries, `rerank bench`) are left out. Exit code 1 if anything differs.
"""

from __future__ import annotations

import argparse
import json
import re
import shlex
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
S = "sample_data/scifact"
BY_ID = f"--run {S}/bm25.test.trec --beir {S}"
FORMATS = ("api", "pairs", "trec", "msmarco", "beir", "flagembedding", "openai-batch")

# A line is one command; {out} is the file it writes. Commands without it are compared by their stdout.
SAMPLES = f"""
run {S}.jsonl -o {{out}}.jsonl
run {S}.jsonl -o {{out}}.jsonl.gz
run {S}.jsonl -o {{out}}.jsonl.zst --scores both --no-documents
run {S}.jsonl -o {{out}}.parquet
run {S}.jsonl -o {{out}}.parquet --format pairs --scores both --mark-truncated
run {S}.jsonl --long-documents max --max-length 128 --top-n 3
run {S}.jsonl --long-documents mean-top3 --max-length 128 --no-documents
run {S}.jsonl --quantize none --dtype bf16 --limit 2
run {S}.parquet -o {{out}}.parquet --format pairs
run {S}.parquet --sort --format pairs
run {S}.score.jsonl
run {S}.score.jsonl -o {{out}}.parquet
run sample_data/xquad.jsonl --min-score 0.01
run sample_data/xquad.jsonl {S}.jsonl --cascade mini:5 --max-length 64
run {BY_ID} --depth 5 --fuse rrf
run {BY_ID} --depth 6 --fuse weighted --fuse-weight 0.3 --format trec
run {BY_ID} --sort -o {{out}}.parquet
run {BY_ID} --devices cpu,cpu --depth 4
check {S}.jsonl
check {S}.jsonl --json
inspect {S}.jsonl --record 3 --candidate 2
inspect {BY_ID} --record 2 --json
score "what is a panda?" "hi" "The giant panda is a bear." --top-n 2
""".strip().splitlines()
SAMPLES += [f"run {S}.jsonl --format {name} --no-documents" for name in FORMATS]

# The runs above are read back: every case names the number of the sample that it reads.
READERS = f"""
eval {{0}}.jsonl --qrels {S}.qrels --baseline {S}.jsonl --per-query --json
eval {{3}}.parquet --qrels {S}.qrels
eval {S}/bm25.test.trec --qrels {S}/qrels/test.tsv --measures nDCG@10,RR@10,AP
report {{0}}.jsonl --input {S}.jsonl --qrels {S}.qrels
report {{4}}.parquet --input {S}.jsonl -o {{out}}.html
view {{0}}.jsonl --input {S}.jsonl --qrels {S}.qrels
view {{1}}.jsonl.gz --top 3
mine {{0}}.jsonl --qrels {S}.qrels --margin 0.01 --scores
mine {{4}}.parquet --input {S}.jsonl --qrels {S}.qrels --range 3- --format triplets
""".strip().splitlines()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("old")
    parser.add_argument("new")
    parser.add_argument("--only", default="samples,readers,parity,cookbook")
    given = parser.parse_args()
    parts = given.only.split(",")
    compared, different = 0, []
    with tempfile.TemporaryDirectory() as folder:
        sides = [Side(Path(folder, name), path) for name, path in (("old", given.old), ("new", given.new))]
        for case in cases(parts):
            found = [side.run(case) for side in sides]
            compared += 1
            if found[0] != found[1]:
                different.append(case)
                print(
                    f"differs: {case}",
                    *(f"exit {side[0].decode()}, … {side[-1][-300:]!r}" for side in found),
                    sep="\n  ",
                )
        if "cookbook" in parts:
            books = [side.cookbook() for side in sides]
            compared += len(books[0])
            for name in sorted(books[0].keys() | books[1].keys()):
                if books[0].get(name) != books[1].get(name):
                    different.append(name)
                    print(f"differs: cookbook, {name}")
    print(json.dumps({"benchmark": "same_bytes", "compared": compared, "different": len(different)}))
    raise SystemExit(bool(different))


def cases(parts: list[str]) -> Iterator[str]:
    if "samples" in parts or "readers" in parts:
        yield from (f"{line} -m mini" for line in SAMPLES)
    if "readers" in parts:
        yield from READERS
    if "parity" in parts:
        yield from parity()


def parity() -> Iterator[str]:
    """One run a checkpoint and set of options in tests/models/parity/expected.json."""
    flags = {"max_length": "--max-length", "query_max_length": "--query-max-length", "cutoff_layers": "--cutoff-layers"}
    flags |= {"compress_layers": "--compress-layers", "compress_ratio": "--compress-ratio"}
    seen = set()
    for case in json.loads((ROOT / "tests/models/parity/expected.json").read_bytes())["cases"]:
        options = case["options"]
        given = [f"--prompt {shlex.quote(options['prompt'])}"] if "prompt" in options else []
        for name, flag in flags.items():
            if (value := options.get(name)) is not None:
                given.append(f"{flag} {','.join(map(str, value)) if isinstance(value, list) else value}")
        line = f"run {S}.jsonl --limit 2 --scores both --no-documents -m parity/{case['checkpoint']} {' '.join(given)}"
        if line not in seen:
            seen.add(line)
            yield line


class Side:
    """One installation and the folder that its commands run in."""

    def __init__(self, folder: Path, rerank: str) -> None:
        self.folder = folder
        self.rerank = str(Path(rerank).absolute())
        self.samples: list[str] = []
        folder.mkdir()
        shutil.copytree(ROOT / "sample_data", folder / "sample_data")
        shutil.copytree(ROOT / "tests" / "models" / "parity", folder / "parity")

    def run(self, case: str) -> list[bytes]:
        """Exit code, stdout, and what was written."""
        name = f"out{len(self.samples)}"
        line = re.sub(r"\{(\d+)\}", lambda found: self.samples[int(found[1])], case).replace("{out}", name)
        self.samples.append(name)
        ended = subprocess.run([self.rerank, *shlex.split(line)], cwd=self.folder, capture_output=True, check=False)
        written = [path.read_bytes() for path in sorted(self.folder.glob(f"{name}*"))]
        return [str(ended.returncode).encode(), ended.stdout, *written]

    def cookbook(self) -> dict[str, bytes]:
        """The files that the recipes leave behind, but for caches, summaries and pages of figures."""
        folder = self.folder / "cookbook"
        folder.mkdir()
        shutil.copytree(ROOT / "sample_data", folder / "sample_data")
        bin = folder / "bin"
        bin.mkdir()
        for name, program in (("rerank", self.rerank), ("python", sys.executable)):
            (bin / name).write_text(f'#!/bin/sh\nexec {shlex.quote(program)} "$@"\n')
            (bin / name).chmod(0o755)
        page = (ROOT / "docs" / "cookbook.md").read_text(encoding="utf-8")
        for block in re.findall(r"^```bash\n(.*?)^```", page, re.MULTILINE | re.DOTALL):
            subprocess.run(
                ["bash", "-euo", "pipefail", "-c", f"export PATH={bin}:$PATH\n{block}"],
                cwd=folder,
                capture_output=True,
                check=True,
            )
        kept = [path for path in folder.glob("*.*") if path.suffix in {".jsonl", ".trec", ".parquet"}]
        return {path.name: path.read_bytes() for path in kept}


if __name__ == "__main__":
    main()
