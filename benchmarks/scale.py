"""Where each way to use many cards stops scaling: a simulation with workers that wait instead of scoring.

A billion pairs, 1 to 4,096 cards on nodes of eight. Rates, stragglers, deaths and replacements are drawn from a seed:

* cluster: one driver hands out slices to all cards, as `rerank run --ray` does: two tasks a worker, a window of eight
  slices a worker, results in order. The driver is one server; its time a pair is that of `ray_driver.py`.
* shards: one job a node, each with an equal part of the input.
* folder: one job a node, which take files by leases; a dead node's file is taken over from its last commit.

Shows hours with loading, the share of the cards' time that is spent scoring, how busy the driver is, the tail (hours
from when the first card has nothing left to do), pairs scored twice, and requests a second to the store. A table, then
one JSON line.

    python benchmarks/scale.py
"""

from __future__ import annotations

import argparse
import heapq
import math
import random
from collections import deque
from dataclasses import asdict, dataclass, replace

import orjson

PER_NODE = 8


@dataclass(frozen=True, slots=True)
class World:
    """What is measured, and what is assumed. Seconds and pairs."""

    pairs: int = 1_000_000_000
    slice_pairs: int = 8_192  # --chunk-pairs on CUDA
    driver_seconds: float = 6e-6  # CPU of a pair, benchmarks/ray_driver.py
    row_pairs: int = 190  # of 170 tokens in a row of 32,768
    rate: float = 6_000.0  # pairs a second of a card, assumed
    spread: float = 0.1  # standard deviation of a card's rate, as a share
    slow: float = 0.01  # share of cards that are stragglers
    slow_rate: float = 0.3  # their rate, as a share
    life: float = 12 * 3600.0  # of a node, mean (spot)
    absent: float = 300.0  # until a node is replaced, mean
    load: float = 60.0  # until the model is loaded
    stale: float = 60.0  # until the lease of a dead node is taken over
    commit: float = 15.0  # seconds between commits to a bucket
    renewed: float = 10.0  # seconds between renewals of a lease
    file_pairs: int = 100_000  # of a file of the folder
    pair_bytes: int = 620  # read, and about as many written
    block: int = 4 << 20  # bytes a request
    take: int = 6  # requests to take a file by a lease and to give it back
    window: int = 8  # slices a worker, see ray_transport.py
    tasks: int = 2


@dataclass(frozen=True, slots=True)
class Found:
    design: str
    cards: int
    hours: float
    used: float
    driver: float
    tail: float
    twice: float
    requests: float


def rates(world: World, draw: random.Random, cards: int) -> list[float]:
    """Pairs a second of each card."""
    usual = (max(0.5, draw.gauss(1, world.spread)) for _ in range(cards))
    return [world.rate * (world.slow_rate if draw.random() < world.slow else 1) * share for share in usual]


def cluster(world: World, cards: int, seed: int) -> Found:
    """One driver for all cards. Cards of a node live and die together."""
    draw = random.Random(seed)
    rate = rates(world, draw, cards)
    slices = math.ceil(world.pairs / world.slice_pairs)
    half = world.driver_seconds * world.slice_pairs / 2  # to read and hand out a slice, and to rank and write it
    returned: deque[int] = deque()
    given = first = 0
    done = bytearray(slices)
    tasks: list[deque[int]] = [deque() for _ in range(cards)]
    arrived: list[set[int]] = [set() for _ in range(cards)]
    since = [-1.0] * cards  # when the first of a card's tasks was begun; negative if it waits for one
    life = [0] * cards  # the number of the card's life: events of earlier ones are void
    ready = [True] * cards
    up = cards
    events: list[tuple[float, int, int, int, int]] = []  # time, kind, card or node, life, slice
    scored, died, back, took = range(4)
    free = busy = twice = 0.0
    idle = deque(range(cards))  # cards that have room for a task, those with the fewest first
    idle_since: float | None = None
    nodes = [range(at, min(at + PER_NODE, cards)) for at in range(0, cards, PER_NODE)]
    for node in range(len(nodes)):
        heapq.heappush(events, (draw.expovariate(1 / world.life), died, node, 0, 0))
    now = 0.0

    def begin(card: int) -> None:
        """Begin the first task, if it has arrived."""
        since[card] = -1.0
        if not tasks[card] or tasks[card][0] not in arrived[card]:
            return
        since[card] = now
        end = now + world.slice_pairs / rate[card]
        heapq.heappush(events, (end, scored, card, life[card], tasks[card][0]))

    while first < slices:
        while idle and (returned or (given < slices and given - first < world.window * up)):
            card = idle.popleft()
            if not ready[card] or len(tasks[card]) >= world.tasks:
                continue
            if returned:
                number = returned.popleft()
            else:
                number, given = given, given + 1
            free = max(free, now) + half
            busy += half
            tasks[card].append(number)
            heapq.heappush(events, (free, took, card, life[card], number))
            if len(tasks[card]) < world.tasks:
                idle.append(card)
        if given == slices and not returned and idle_since is None:
            idle_since = now
        now, kind, which, of, number = heapq.heappop(events)
        if kind == took:
            if life[which] != of:
                continue
            arrived[which].add(number)
            if since[which] < 0:
                begin(which)
        elif kind == scored:
            if life[which] != of:
                continue
            arrived[which].discard(tasks[which].popleft())
            free = max(free, now) + half
            busy += half
            done[number] = 1
            while first < slices and done[first]:
                first += 1
            begin(which)
            idle.append(which)
        elif kind == died:
            for card in nodes[which]:
                if since[card] >= 0:
                    begun = (now - since[card]) * rate[card]
                    twice += begun % world.row_pairs
                returned.extendleft(reversed(tasks[card]))
                tasks[card].clear()
                arrived[card].clear()
                since[card] = -1.0
                life[card] += 1
                ready[card] = False
                up -= 1
            away = draw.expovariate(1 / world.absent) + world.load
            heapq.heappush(events, (now + away, back, which, 0, 0))
        else:
            for card in nodes[which]:
                ready[card] = True
                up += 1
                idle.append(card)
            heapq.heappush(events, (now + draw.expovariate(1 / world.life), died, which, 0, 0))
    end = max(now, free)
    tail = end - (idle_since or end)
    end += world.load
    requests = 2 * world.pairs * world.pair_bytes / world.block / end + 2 / world.commit
    used = world.pairs / end / sum(rate)
    return Found("cluster", cards, end / 3600, used, busy / end, tail / 3600, twice, requests)


def share(world: World, draw: random.Random, rate: float, pairs: float) -> tuple[float, float]:
    """Seconds that a node takes for so many pairs, and pairs scored twice: it resumes at its last commit."""
    spent = twice = 0.0
    while pairs > 0:
        life, needed = draw.expovariate(1 / world.life), pairs / rate
        if life >= needed:
            return spent + needed, twice
        lost = min(life, draw.random() * world.commit) * rate
        pairs += lost - life * rate
        twice += lost
        spent += life + draw.expovariate(1 / world.absent) + world.load
    return spent, twice


def shards(world: World, cards: int, seed: int) -> Found:
    """An equal part for each node."""
    draw = random.Random(seed)
    rate = rates(world, draw, cards)
    jobs = [sum(rate[at : at + PER_NODE]) for at in range(0, cards, PER_NODE)]
    found = [share(world, draw, one, world.pairs / len(jobs)) for one in jobs]
    end, twice = max(seconds for seconds, _ in found), sum(lost for _, lost in found)
    busy = max(jobs) * world.driver_seconds
    tail = end - min(seconds for seconds, _ in found)
    end += world.load
    requests = 2 * world.pairs * world.pair_bytes / world.block / end + len(jobs) * 2 / world.commit
    return Found("shards", cards, end / 3600, world.pairs / end / sum(rate), busy, tail / 3600, twice, requests)


def folder(world: World, cards: int, seed: int) -> Found:
    """Nodes take files by leases; the file of a dead node goes to whoever is free next."""
    draw = random.Random(seed)
    rate = rates(world, draw, cards)
    jobs = [sum(rate[at : at + PER_NODE]) for at in range(0, cards, PER_NODE)]
    files: deque[tuple[float, float]] = deque(
        [(0.0, float(world.file_pairs))] * math.ceil(world.pairs / world.file_pairs)
    )
    waiting: list[tuple[float, float]] = []  # files of dead nodes, by when their lease is stale
    free = [(0.0, node) for node in range(len(jobs))]
    deaths = [draw.expovariate(1 / world.life) for _ in jobs]
    end = twice = 0.0
    taken, idle_since = 0, math.inf
    while files or waiting:
        now, node = heapq.heappop(free)
        if waiting and (waiting[0][0] <= now or not files):
            at, pairs = heapq.heappop(waiting)
            now = max(now, at)
        else:
            _, pairs = files.popleft()
        taken += 1
        finish = now + pairs / jobs[node]
        if deaths[node] < finish:
            died = max(now, deaths[node])
            lost = min(died - now, draw.random() * world.commit) * jobs[node]
            twice += lost
            heapq.heappush(waiting, (died + world.stale, pairs + lost - (died - now) * jobs[node]))
            finish = died + draw.expovariate(1 / world.absent) + world.load
            deaths[node] = finish + draw.expovariate(1 / world.life)
        else:
            end = max(end, finish)
        if not files and not waiting:
            idle_since = min(idle_since, *(at for at, _ in free), finish) if free else finish
        heapq.heappush(free, (finish, node))
    tail = max(0.0, end - idle_since)
    end += world.load
    moved = 2 * world.pairs * world.pair_bytes / world.block + taken * (world.take + 4)
    requests = moved / end + len(jobs) * (2 / world.commit + 1 / world.renewed)
    used, busy = world.pairs / end / sum(rate), max(jobs) * world.driver_seconds
    return Found("folder", cards, end / 3600, used, busy, tail / 3600, twice, requests)


def mean(drawn: list[Found]) -> Found:
    names = ("hours", "used", "driver", "tail", "twice", "requests")
    return replace(drawn[0], **{name: sum(getattr(one, name) for one in drawn) / len(drawn) for name in names})


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    usual = World()
    parser.add_argument("--pairs", type=int, default=usual.pairs)
    parser.add_argument("--cards", type=int, nargs="+", default=[1, 8, 16, 32, 64, 128, 256, 512, 1024, 2048, 4096])
    parser.add_argument("--driver-seconds", type=float, default=usual.driver_seconds, help="of the driver, for a pair")
    parser.add_argument("--rate", type=float, default=usual.rate, help="pairs a second of a card")
    parser.add_argument("--slow", type=float, default=usual.slow, help="share of stragglers")
    parser.add_argument("--life", type=float, default=usual.life / 3600, help="hours that a node lives, mean")
    parser.add_argument("--window", type=int, default=usual.window)
    parser.add_argument("--seeds", type=int, default=5, help="draws whose mean is shown")
    args = parser.parse_args()
    given = {name: getattr(args, name) for name in ("pairs", "driver_seconds", "rate", "slow", "window")}
    world = World(**given, life=args.life * 3600)
    designs = (cluster, shards, folder)
    rows = [
        mean([design(world, cards, seed) for seed in range(args.seeds)]) for design in designs for cards in args.cards
    ]
    print(f"{'design':<9}{'cards':>6}{'hours':>9}{'used':>8}{'driver':>8}{'tail':>8}{'twice':>12}{'requests/s':>12}")
    for row in rows:
        print(f"{row.design:<9}{row.cards:>6}{row.hours:>9.2f}{row.used:>8.1%}{row.driver:>8.0%}", end="")
        print(f"{row.tail:>8.2f}{row.twice:>12,.0f}{row.requests:>12,.1f}")
    print()
    print(orjson.dumps({"benchmark": "scale", "world": asdict(world), "rows": [asdict(row) for row in rows]}).decode())


if __name__ == "__main__":
    main()
