"""Closes the data that a test opened."""

import pytest
import training_records


@pytest.fixture(autouse=True)
def _close_data():
    yield
    while training_records.OPEN:
        training_records.OPEN.pop().close()
