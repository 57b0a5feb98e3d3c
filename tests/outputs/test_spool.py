"""What waits on disk outlives a kill, stays in order and within its bound."""

from __future__ import annotations

import errno
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import hypothesis.strategies as st
import pytest
from hypothesis import given, settings

from inspection.errors import ConfigInvalid, OutputUnwritable
from inspection.outputs.sink import Message
from inspection.outputs.spool import Spool
from tests.outputs.conftest import message

BOUND = 1_000_000


def numbers(spool: Spool) -> list[int]:
    """Takes all out."""
    found = []
    while (one := spool.peek()) is not None:
        found.append(one.sequence)
        spool.pop()
    return found


def only_segment(folder: Path) -> Path:
    (path,) = folder.glob("*.spool")
    return path


def test_messages_come_back_as_they_were_also_in_another_process(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BOUND)
    sent = Message(kind="alarm", sequence=3, wall=1.7e9, body={"what": "Größe µ", "n": [1, None, 0.1]})
    spool.append(sent)
    spool.close()
    again = Spool(tmp_path, BOUND)
    assert again.peek() == sent
    assert len(again) == 1
    again.close()


def test_delivered_messages_do_not_come_back(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BOUND)
    for number in range(10):
        spool.append(message(number))
    for _ in range(4):
        spool.pop()
    spool.close()
    spool = Spool(tmp_path, BOUND)
    spool.append(message(10))
    assert numbers(spool) == list(range(4, 11))
    spool.close()
    assert len(Spool(tmp_path, BOUND)) == 0
    assert list(tmp_path.glob("*.spool")) == []


@pytest.mark.parametrize("cut", [1, 7, 8, 30])
def test_a_torn_record_is_dropped_and_counted_and_nothing_is_written_behind_it(tmp_path: Path, cut: int) -> None:
    spool = Spool(tmp_path, BOUND)
    for number in range(3):
        spool.append(message(number))
    spool.close()
    path = only_segment(tmp_path)
    os.truncate(path, path.stat().st_size - cut)
    spool = Spool(tmp_path, BOUND)
    assert spool.damaged == 1
    spool.append(message(3))
    spool.close()
    spool = Spool(tmp_path, BOUND)
    assert numbers(spool) == [0, 1, 3]
    spool.close()


@settings(max_examples=60, deadline=None)
@given(place=st.integers(0, 400), value=st.integers(0, 255))
def test_an_overwritten_byte_costs_at_most_what_it_hit_and_what_lies_behind_it(
    tmp_path_factory: pytest.TempPathFactory, place: int, value: int
) -> None:
    folder = tmp_path_factory.mktemp("spool")
    spool = Spool(folder, BOUND)
    for number in range(5):
        spool.append(message(number))
    spool.close()
    path = only_segment(folder)
    data = bytearray(path.read_bytes())
    place %= len(data)
    changed = data[place] != value
    data[place] = value
    path.write_bytes(data)
    spool = Spool(folder, BOUND)
    damaged = spool.damaged
    found = numbers(spool)
    spool.close()
    before = list(range(place // (len(data) // 5)))
    assert found[: len(before)] == before
    assert set(found) <= set(range(5))
    assert (damaged > 0) == (changed or len(found) < 5)


def test_without_a_sound_position_all_comes_again_rather_than_nothing(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BOUND)
    for number in range(3):
        spool.append(message(number))
    spool.pop()
    spool.close()
    (tmp_path / "position").write_bytes(b"\x01" * 20)
    spool = Spool(tmp_path, BOUND)
    assert numbers(spool) == [0, 1, 2]
    spool.close()


def test_at_the_bound_the_oldest_go_at_most_an_eighth_at_a_time(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 20_000)
    kept = 0
    for number in range(2000):
        dropped = spool.append(message(number))
        assert dropped <= 20_000 / 8 / 80
        kept += 1 - dropped
        assert len(spool) == kept
        assert sum(path.stat().st_size for path in tmp_path.glob("*.spool")) == spool.size <= 20_000
    assert spool.size > 20_000 * 0.8
    assert numbers(spool) == list(range(2000 - kept, 2000))
    spool.close()


def test_a_message_larger_than_the_bound_goes_with_all_before_it(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 1000)
    spool.append(message(1))
    assert spool.append(Message(kind="state", sequence=2, wall=0.0, body={"text": "x" * 2000})) == 2
    assert len(spool) == 0
    spool.append(message(3))
    assert numbers(spool) == [3]
    spool.close()


def test_a_disk_that_does_not_give_a_message_costs_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As with a share that is away, or where no file can be opened any more; damage is something else."""
    spool = Spool(tmp_path, BOUND)
    for number in range(3):
        spool.append(message(number))
    with monkeypatch.context() as away:
        away.setattr(os, "pread", lambda *_: (_ for _ in ()).throw(OSError(errno.EIO, "Input/output error")))
        for _ in range(5):
            with pytest.raises(OSError, match="Input/output"):
                spool.peek()
    assert (len(spool), spool.damaged) == (3, 0)
    assert numbers(spool) == [0, 1, 2]
    spool.close()


def test_a_file_that_somebody_deletes_costs_its_own_messages_and_they_are_counted(tmp_path: Path) -> None:
    spool = Spool(tmp_path, 8_000)
    for number in range(30):
        spool.append(message(number))
    first, *others = sorted(tmp_path.glob("*.spool"))
    assert others
    first.unlink()
    left = numbers(spool)
    assert left == list(range(30 - len(left), 30))
    assert spool.damaged == 30 - len(left) > 0
    spool.close()


def test_what_comes_after_the_file_that_is_written_was_deleted_outlives_a_kill(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BOUND)
    spool.append(message(1))
    only_segment(tmp_path).unlink()
    spool.append(message(2))
    copy = tmp_path / "copy"  # what a process that is started after a kill would find
    copy.mkdir()
    shutil.copy(only_segment(tmp_path), copy)
    again = Spool(copy, BOUND)
    assert numbers(again) == [2]
    again.close()
    spool.close()


def test_a_folder_that_is_away_for_a_while_costs_no_message(tmp_path: Path) -> None:
    folder, away = tmp_path / "spool", tmp_path / "away"
    spool = Spool(folder, 4_000)
    for number in range(5):
        spool.append(message(number))
    folder.rename(away)
    folder.mkdir()  # as a mount point without its share
    for number in range(5, 20):
        spool.append(message(number))
        spool.pop()
    assert list(folder.iterdir()) == []
    folder.rmdir()
    away.rename(folder)
    assert numbers(spool) == list(range(15, 20))
    assert spool.damaged == 0
    spool.close()


def test_a_folder_that_is_deleted_costs_what_lay_in_it_and_is_made_anew(tmp_path: Path) -> None:
    spool = Spool(tmp_path / "spool", BOUND)
    for number in range(3):
        spool.append(message(number))
    shutil.rmtree(tmp_path / "spool")
    spool.append(message(3))
    assert numbers(spool) == [3]
    assert spool.damaged == 3
    spool.close()
    assert len(Spool(tmp_path / "spool", BOUND)) == 0


def test_two_lines_cannot_deliver_from_one_spool(tmp_path: Path) -> None:
    spool = Spool(tmp_path, BOUND)
    with pytest.raises(ConfigInvalid, match="another process"):
        Spool(tmp_path, BOUND)
    spool.close()
    Spool(tmp_path, BOUND).close()


def test_a_folder_that_cannot_be_made_is_said(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(OutputUnwritable):
        Spool(tmp_path / "file" / "spool", BOUND)


def test_a_disk_that_is_full_leaves_what_was_stored_and_takes_more_when_it_has_room(tmp_path: Path) -> None:
    """A real limit of the kernel: a process that may write only 4096 bytes to a file."""
    program = """
import resource, signal, sys
from inspection.outputs.spool import Spool
from tests.outputs.conftest import message
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
spool = Spool(sys.argv[1], 1_000_000)
resource.setrlimit(resource.RLIMIT_FSIZE, (4096, hard))
stored = 0
try:
    while True:
        spool.append(message(stored))
        stored += 1
except OSError as error:
    print(stored, len(spool), type(error).__name__)
resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
spool.append(message(stored))
print(len(spool), spool.size)
"""
    ran = subprocess.run([sys.executable, "-c", program, str(tmp_path)], capture_output=True, text=True, check=True)
    first, second = ran.stdout.splitlines()
    stored, waiting, kind = first.split()
    assert (stored, kind) == (waiting, "OSError")
    spool = Spool(tmp_path, BOUND)
    assert (spool.damaged, spool.size) == (0, int(second.split()[1]))
    assert numbers(spool) == list(range(int(stored) + 1))
    spool.close()


def test_after_sigkill_everything_stored_is_there_and_at_most_one_delivered_message_comes_again(tmp_path: Path) -> None:
    program = """
import sys
from inspection.outputs.spool import Spool
from tests.outputs.conftest import message
spool = Spool(sys.argv[1], 100_000_000)
delivered = 0
for number in range(1_000_000):
    spool.append(message(number))
    print("stored", number, flush=True)
    if number % 3 == 0:
        print("delivered", spool.peek().sequence, flush=True)
        spool.pop()
"""
    child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)], stdout=subprocess.PIPE, text=True)
    assert child.stdout is not None
    stored, delivered = -1, -1
    for line in child.stdout:
        if not line.endswith("\n"):
            break  # it was killed while it wrote that
        what, number = line.split()
        stored, delivered = (int(number), delivered) if what == "stored" else (stored, int(number))
        if stored == 3000:
            child.send_signal(signal.SIGKILL)
    child.wait()
    child.stdout.close()
    spool = Spool(tmp_path, 100_000_000)
    found = numbers(spool)
    spool.close()
    assert found == list(range(found[0], found[-1] + 1))
    assert found[0] in (delivered, delivered + 1)
    assert found[-1] in (stored, stored + 1)
