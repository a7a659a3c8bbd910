"""The order of the files: those with slow tests first, so that at the end no worker waits for another's long file."""

import os


def pytest_collection_modifyitems(items):
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)


def pytest_xdist_auto_num_workers():
    """One worker more than cores: tests wait for disks, signals and other processes for a third of their time."""
    return (os.cpu_count() or 1) + 1
