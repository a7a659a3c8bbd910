"""With this folder on PYTHONPATH, a process knows the sets of `local_sets` once it imports ir_datasets."""

import importlib.abc
import importlib.machinery
import sys


class _Finder(importlib.abc.MetaPathFinder):
    def find_spec(self, name, path=None, target=None):  # noqa: ARG002 - of the interface
        if name != "ir_datasets":
            return None
        sys.meta_path.remove(self)
        spec = importlib.machinery.PathFinder.find_spec(name, path)
        if spec is not None:
            executed = spec.loader.exec_module

            def executed_with_sets(module):
                executed(module)
                import local_sets  # noqa: F401

            spec.loader.exec_module = executed_with_sets
        return spec


if "ir_datasets" in sys.modules:  # in the fork server
    import local_sets  # noqa: F401
else:
    sys.meta_path.insert(0, _Finder())
