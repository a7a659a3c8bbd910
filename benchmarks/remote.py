"""Remote paths, measured on this machine: reading against the library alone, and kills with everything in a bucket.

    python benchmarks/remote.py read --megabytes 1000
    python benchmarks/remote.py kills --kills 30

`read`: an object of JSON lines behind a server that sends ranges of a file, read by `storage/opening.py`, and the same
ranges by obstore alone, one after the other and four at once; each in a process of its own, in turns. `kills`: `rerank
run` with input, output and checkpoint in moto's S3 server, killed at random moments; a third of the starts has an
empty disk. The last line is JSON.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

sys.path.append(str(Path(__file__).parents[1] / "tests" / "remote"))

ROOT = Path(__file__).parents[1]
BLOCK = 4 << 20
BUCKET = "benchmark"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["read", "kills"])
    parser.add_argument("--megabytes", type=int, default=1000)
    parser.add_argument("--turns", type=int, default=3)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=7)
    parser.add_argument("--child", choices=["ours", "alone", "alone-ahead"], help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.child:
        return _child(args.child)
    return _read(args.megabytes, args.turns) if args.what == "read" else _kills(args.kills, args.seed)


class RangeHandler(BaseHTTPRequestHandler):
    """One file as an object of S3, whatever its key: GET with a range, sent by the kernel."""

    protocol_version = "HTTP/1.1"
    path_of_file: Path

    def log_message(self, *_: object) -> None:
        pass

    def do_GET(self) -> None:
        size = self.path_of_file.stat().st_size
        begin, end = map(int, self.headers["Range"].removeprefix("bytes=").split("-"))
        end = min(end, size - 1)
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {begin}-{end}/{size}")
        self.send_header("Content-Length", str(end - begin + 1))
        self.send_header("ETag", '"1"')
        self.send_header("Last-Modified", "Thu, 26 Nov 2026 12:00:00 GMT")
        self.end_headers()
        with self.path_of_file.open("rb") as file:
            while begin <= end:
                begin += os.sendfile(self.connection.fileno(), file.fileno(), begin, end - begin + 1)


def _read(megabytes: int, turns: int) -> int:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "big.jsonl")
        line = (
            json.dumps({"query": "what is a panda?", "documents": ["The giant panda is a bear. " * 22] * 10}).encode()
            + b"\n"
        )
        with path.open("wb") as file:
            for _ in range(megabytes * 1_000_000 // len(line)):
                file.write(line)
        handler = type("Handler", (RangeHandler,), {"path_of_file": path})
        server = ThreadingHTTPServer(("127.0.0.1", 0), handler)
        server.daemon_threads = True
        threading.Thread(target=server.serve_forever, daemon=True).start()
        access = {"AWS_ACCESS_KEY_ID": "a", "AWS_SECRET_ACCESS_KEY": "b", "AWS_REGION": "us-east-1"}
        env = os.environ | access | {"AWS_ENDPOINT_URL": f"http://127.0.0.1:{server.server_address[1]}"}
        found: dict[str, list[dict[str, float]]] = {"ours": [], "alone": [], "alone-ahead": []}
        for _ in range(turns):
            for child, results in found.items():
                command = [sys.executable, __file__, "read", "--child", child]
                results.append(json.loads(subprocess.run(command, env=env, check=True, capture_output=True).stdout))
        size = path.stat().st_size
        server.shutdown()
    rates = {name: statistics.median(size / one["seconds"] / 1e6 for one in results) for name, results in found.items()}
    memory = {name: max(one["memory"] for one in results) for name, results in found.items()}
    for name, rate in rates.items():
        print(f"{name:<12} {rate:8,.0f} MB/s  {memory[name] / 1e6:6,.0f} MB more at the peak than before")
    ratio = rates["ours"] / rates["alone"]
    best = rates["ours"] / max(rates["alone"], rates["alone-ahead"])
    figures = {
        "megabytes": size / 1e6,
        "mb_per_second": rates,
        "memory_bytes": memory,
        "to_alone": ratio,
        "to_best": best,
    }
    print(json.dumps({"benchmark": "remote read", **figures}))
    return 0


def _child(what: str) -> int:
    import obstore
    from obstore.store import S3Store

    from rerank_cli.storage.opening import open_bytes

    store = S3Store("bucket", client_options={"allow_http": True})
    size = obstore.get(store, "big.jsonl", options={"range": (0, 1)}).meta["size"]
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024
    since = time.perf_counter()
    done = 0
    if what == "ours":
        with open_bytes("s3://bucket/big.jsonl").content as content:
            while block := content.read(1 << 20):
                done += len(block)
    else:
        ranges = [(begin, min(begin + BLOCK, size)) for begin in range(0, size, BLOCK)]

        def one(part: tuple[int, int]) -> int:
            return len(obstore.get(store, "big.jsonl", options={"range": part}).bytes())

        if what == "alone":
            done = sum(map(one, ranges))
        else:
            with ThreadPoolExecutor(4) as pool:
                done = sum(pool.map(one, ranges))
    assert done == size
    seconds = time.perf_counter() - since
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 - before
    print(json.dumps({"seconds": seconds, "memory": memory}))
    return 0


def _kills(kills: int, seed: int) -> int:
    from s3_server import Bucket, S3Server

    rng = random.Random(seed)
    server = S3Server()
    bucket = Bucket(server, BUCKET)
    folder = Path(tempfile.mkdtemp(prefix="rerank-remote-kills-"))
    source = (ROOT / "sample_data" / "scifact.jsonl").read_bytes().splitlines(keepends=True)
    data = b"".join(_renamed(source[number % len(source)], number) for number in range(150))
    bucket.put("in.jsonl", data)
    (folder / "in.jsonl").write_bytes(data)
    disks, done, lost, doubled, left, differing = 0, 0, 0, 0, 0, 0
    moments: list[str] = []
    since = time.monotonic()
    try:
        for number in range(10_000):
            if done >= kills:
                break
            name = ("out.jsonl", "out.jsonl.gz", "out.parquet")[number % 3]
            expected = _undisturbed(folder, name)
            disk = f"disk-{number}"
            more = 3  # kills of this job
            while done < kills and more:
                ended = _attempt(bucket, folder, name, disk, rng.uniform(1.5, 14))
                if ended is None:
                    done, more = done + 1, more - 1
                    keys = bucket.keys()
                    stage = "published" if name in keys else "committed" if "check" in keys else "started"
                    moments.append(stage)
                    if done % 3 == 0:
                        disks, disk = disks + 1, f"{disk}-{done}"
                    print(f"kill {done}: {name}, {stage}", file=sys.stderr, flush=True)
                    continue
                break
            ended = _attempt(bucket, folder, name, disk, None)
            if ended != 0:
                print(f"{name}: exit code {ended}", file=sys.stderr)
                return 1
            got = bucket.get(name)
            differing += got != expected
            ids, wanted = _ids(got, name), _ids(expected, name)
            lost += len(set(wanted) - set(ids))
            doubled += len(ids) - len(set(ids))
            left += len(set(bucket.keys()) - {"in.jsonl", name})
            server.request("DELETE", f"{BUCKET}/{name}")
    finally:
        server.stop()
        shutil.rmtree(folder)
    stages = {stage: moments.count(stage) for stage in sorted(set(moments))}
    found = {
        "kills": done,
        "empty_disks": disks,
        "lost": lost,
        "doubled": doubled,
        "differing": differing,
        "left": left,
    }
    print(json.dumps({"benchmark": "remote kills", **found, "stages": stages, "seconds": time.monotonic() - since}))
    return int(bool(lost or doubled or differing or left))


def _renamed(line: bytes, number: int) -> bytes:
    """A record of its own, with passages that are short: what counts are the moments."""
    record = json.loads(line)
    record["documents"] = [document | {"text": document["text"][:100]} for document in record["documents"]]
    return json.dumps(record | {"id": str(number), "query": f"{record['query']} {number}"}).encode() + b"\n"


def _undisturbed(folder: Path, name: str) -> bytes:
    """The output of a local run."""
    path = folder / name
    if not path.exists():
        command = [sys.executable, "-m", "rerank_cli", "run", "in.jsonl", "-o", name, *_options()]
        subprocess.run(command, cwd=folder, check=True, capture_output=True, env=os.environ | {"OMP_NUM_THREADS": "1"})
    return path.read_bytes()


def _options() -> list[str]:
    return ["-m", "mini", "--threads", "1", "--chunk-pairs", "64", "--top-n", "5", "--progress", "off"]


def _attempt(bucket, folder: Path, name: str, disk: str, dies_after: float | None) -> int | None:  # noqa: ANN001
    """The exit code of a run, None if it was killed."""
    remote = [bucket / "in.jsonl", "-o", bucket / name, "--checkpoint", bucket / "check", "--commit-interval", "0.3"]
    env = os.environ | bucket.env | {"XDG_STATE_HOME": str(folder / disk), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, "-m", "rerank_cli", "run", *remote, *_options()]
    process = subprocess.Popen(command, env=env, stderr=subprocess.PIPE)
    try:
        error = process.communicate(timeout=dies_after)[1]
    except subprocess.TimeoutExpired:
        process.send_signal(signal.SIGKILL)
        process.communicate()
        return None
    if process.returncode:
        print(error.decode(), file=sys.stderr)
    return process.returncode


def _ids(data: bytes, name: str) -> list[str]:
    """The ids of the records of an output, in order."""
    if name.endswith(".parquet"):
        import io

        import pyarrow.parquet as pq

        return list(pq.read_table(io.BytesIO(data)).column("id").to_pylist())
    if name.endswith(".gz"):
        import gzip

        data = gzip.decompress(data)
    return [json.loads(line)["id"] for line in data.splitlines()]


if __name__ == "__main__":
    sys.exit(main())
