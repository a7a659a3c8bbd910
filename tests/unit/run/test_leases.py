"""Leases: a name has one holder, a dead one is replaced at once or when it is stale, and finds out if it lives."""

import json
import os
import threading
from contextlib import suppress

import pytest

from rerank_cli.errors import HeldError
from rerank_cli.storage.folder import LocalFolder
from rerank_cli.storage.lease import Worker, leased, process_of, workers


@pytest.fixture
def folder(tmp_path):
    return LocalFolder(str(tmp_path / "shared"))


def vanish(worker):
    """What is left of a process of another machine that died: its file, without a lock that is visible here."""
    path = worker.folder.path / "workers" / worker.token
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"process 7 on elsewhere\n{json.dumps({'machine': worker.machine})}")
    return path


def test_one_holder_whose_name_the_others_are_told_until_it_gives_back(folder):
    one, two = Worker(folder), Worker(folder)
    with one.present(), two.present():
        lease = one.hold("a.jsonl")
        with pytest.raises(HeldError, match=rf"a\.jsonl: being written by process {os.getpid()} on "):
            two.hold("a.jsonl")
        two.hold("b.jsonl")
        assert leased(folder) == {"a.jsonl": one.token, "b.jsonl": two.token}
        lease.check()
        lease.give_back()
        two.hold("a.jsonl").check()
        with pytest.raises(HeldError, match="taken over"):
            lease.check()
        lease.give_back()  # what is not its own it leaves alone
        assert leased(folder)["a.jsonl"] == two.token


def test_of_many_that_try_at_once_one_holds(folder):
    many, held, together = [Worker(folder) for _ in range(8)], [], threading.Barrier(8)

    def attempt(worker):
        with worker.present():
            together.wait()
            with suppress(HeldError):
                held.append(worker.hold("a"))
            together.wait()

    threads = [threading.Thread(target=attempt, args=(worker,)) for worker in many]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(held) == 1


def test_a_process_that_left_is_replaced_at_once(folder):
    one, two = Worker(folder), Worker(folder)
    with one.present():
        lease = one.hold("a")
    with two.present():
        assert two.hold("a").number == lease.number + 1
        with pytest.raises(HeldError):
            lease.check()


def test_a_dead_process_of_this_machine_is_replaced_at_once_and_is_no_suspect(folder):
    dead, two = Worker(folder), Worker(folder)
    vanish(dead)
    dead.hold("a")
    with two.present():
        assert not two.hold("a").suspect


def test_a_process_of_another_machine_is_replaced_when_it_is_stale_by_the_folder_s_clock(folder):
    far, two = Worker(folder, machine="elsewhere"), Worker(folder)
    path = vanish(far)
    lease = far.hold("a")
    with two.present():
        with pytest.raises(HeldError, match="process 7 on elsewhere"):
            two.hold("a")
        assert two.others() == [far.token]
        then = folder.now() - 61
        os.utime(path, (then, then))
        taken = two.hold("a")
        assert taken.suspect
        taken.check()
        with pytest.raises(HeldError, match="taken over"):
            lease.check()
        os.utime(path)  # it was only asleep
        with pytest.raises(HeldError, match="taken over"):
            lease.check()
        taken.give_back()
        with pytest.raises(HeldError, match="taken over"):
            lease.check()
        assert leased(folder) == {}


def test_the_dead_are_cleared_away_and_nothing_is_left(folder):
    dead, two = Worker(folder), Worker(folder)
    vanish(dead)
    dead.hold("a")
    with two.present():
        two.clear()
        assert (workers(folder), leased(folder)) == ([two.token], {})
    folder.delete_empty("")
    assert not folder.path.exists()


def test_a_note_is_renewed_and_names_the_process(folder):
    told = threading.Event()
    worker = Worker(folder)
    worker.note = lambda: told.set() or {"output": "a"}
    with worker.present(renewed=0.01):
        told.clear()
        assert told.wait(60)
        assert process_of(folder, worker.token).startswith(f"process {os.getpid()} on ")


def test_of_two_that_put_a_file_one_succeeds_and_no_other_file_is_left(folder):
    assert folder.put_if_absent("x/a", b"1")
    assert not folder.put_if_absent("x/a", b"2")
    assert folder.read("x/a") == b"1"
    assert [entry.name for entry in folder.entries()] == ["x/a"]
    folder.write("x/a", b"3")
    assert (folder.read("x/a"), folder.entry("x/a").size, folder.entry("y")) == (b"3", 1, None)
    folder.delete("x/a")
    folder.delete("x/a")
    assert folder.read("x/a") is None
