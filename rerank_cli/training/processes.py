"""Several processes that train one model, as `torchrun` or `accelerate launch` starts them.

Each computes a part of every batch; gradients are added over all. Process 0 alone writes files and messages.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, TypeVar

from rerank_cli.errors import UsageError
from rerank_cli.training.launcher import EFFICIENT_LOADING, ShardOptions, wanted_sharding

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")
_BUCKET = 16_000_000  # elements that are added at once


@dataclass(frozen=True, slots=True)
class Processes:
    """This process is number `rank` of `count`; `local` is its number on its machine, which is that of its device.

    With `shards` each has a part of the model's tensors, else all of them.
    """

    rank: int = 0
    count: int = 1
    local: int = 0
    shards: ShardOptions | None = None

    @property
    def leads(self) -> bool:
        """Whether this process writes files and messages."""
        return self.rank == 0

    def share(self, items: Sequence[T]) -> Sequence[T]:
        """Those of the items that this process computes."""
        return items if self.count == 1 else items[self.rank :: self.count]

    def add(self, tensors: list[Tensor]) -> None:
        """Replace each tensor by its sum over all processes, computed in the same order in each."""
        if self.count == 1:
            return
        import torch
        import torch.distributed as together

        for bucket in _buckets(tensors):
            flat = torch.cat([tensor.reshape(-1) for tensor in bucket])
            together.all_reduce(flat)
            parts = flat.split([tensor.numel() for tensor in bucket])  # type: ignore[no-untyped-call]
            for tensor, part in zip(bucket, parts, strict=True):
                tensor.copy_(part.view_as(tensor))

    def any(self, here: bool) -> bool:
        """Whether it is true in any process."""
        return any(self.gather(here)) if self.count > 1 else here

    def gather(self, value: T) -> list[T]:
        """The value of each process, by rank."""
        if self.count == 1:
            return [value]
        import torch.distributed as together

        found: list[Any] = [None] * self.count
        together.all_gather_object(found, value)
        return found

    def wait(self) -> None:
        """Wait until all processes are here."""
        self.gather(None)


@contextmanager
def joined(device: str) -> Iterator[Processes]:
    """The processes that the environment names, connected until the block is left. Raises UsageError.

    `device` is that of the flags: it decides whether they talk by NCCL or by Gloo.
    """
    try:
        count, rank = int(os.environ.get("WORLD_SIZE", 1)), int(os.environ.get("RANK", 0))
        local = int(os.environ.get("LOCAL_RANK", rank))
    except ValueError as error:
        raise UsageError(f"WORLD_SIZE, RANK and LOCAL_RANK: expected whole numbers ({error})") from None
    shards = wanted_sharding(os.environ)
    if count <= 1:
        if shards:
            raise UsageError("ACCELERATE_USE_FSDP: there is one process, and nothing to divide. Fix: --num_processes")
        yield Processes()
        return
    import torch
    import torch.distributed as together

    # Default arguments of this module keep the group that exists when it is imported, which transformers does. Its
    # threads would outlive the interpreter, and end the process with SIGABRT now and then.
    import torch.distributed.nn.functional

    on_cuda = device.startswith("cuda") or (device == "auto" and torch.cuda.is_available())
    if on_cuda:
        torch.cuda.set_device(local if device in ("auto", "cuda") else device)  # of NCCL for objects
    # By it transformers leaves the weights of all processes but one empty, for accelerate to send them.
    efficient = os.environ.pop(EFFICIENT_LOADING, None)
    together.init_process_group("nccl" if on_cuda else "gloo")
    try:
        yield Processes(rank, count, local, shards)
    finally:
        together.destroy_process_group()
        if efficient is not None:
            os.environ[EFFICIENT_LOADING] = efficient


def _buckets(tensors: Sequence[Tensor]) -> Iterator[list[Tensor]]:
    """Adjacent tensors of one dtype, of about `_BUCKET` elements."""
    bucket: list[Tensor] = []
    size = 0
    for tensor in tensors:
        if bucket and (size + tensor.numel() > _BUCKET or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket, size = [], 0
        bucket.append(tensor)
        size += tensor.numel()
    if bucket:
        yield bucket
