"""The order of the files: those with slow tests first, so that at the end no worker waits for another's long file."""


def pytest_collection_modifyitems(items):
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    items.sort(key=lambda item: item.path not in slow)
