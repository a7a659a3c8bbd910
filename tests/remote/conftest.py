"""An S3 server for the tests of a process, a bucket for each test, and a folder of its own for unfinished runs."""

import itertools

import pytest
from s3_server import Bucket, S3Server

_numbers = itertools.count()


@pytest.fixture(scope="session")
def s3():
    server = S3Server()
    yield server
    server.stop()


@pytest.fixture
def bucket(s3, monkeypatch, tmp_path):
    for name, value in s3.env.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("XDG_STATE_HOME", str(tmp_path / "state"))
    from rerank_cli.storage.objects import stores

    stores._bucket.cache_clear()
    yield Bucket(s3, f"bucket-{next(_numbers)}")
    stores._bucket.cache_clear()
