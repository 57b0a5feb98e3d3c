"""Outputs are whole or not there."""

from __future__ import annotations

import errno
import os
import resource
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path

import pytest

from inspection.errors import DataInvalid, OutputUnwritable
from inspection.files import find_images, write_all, write_bytes, write_text, writing


def leftovers(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_what_is_written_is_there_and_nothing_beside_it(tmp_path: Path) -> None:
    write_text(tmp_path / "new" / "folder" / "a.json", "größe")
    write_bytes(tmp_path / "new" / "folder" / "a.json", b"again")
    assert (tmp_path / "new" / "folder" / "a.json").read_bytes() == b"again"
    assert leftovers(tmp_path / "new" / "folder") == ["a.json"]


def test_the_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    old = os.umask(0o027)
    try:
        write_text(tmp_path / "a", "x")
    finally:
        os.umask(old)
    assert stat.S_IMODE((tmp_path / "a").stat().st_mode) == 0o640


def test_the_temporary_file_has_the_same_ending(tmp_path: Path) -> None:
    with writing(tmp_path / "table.parquet") as temporary:
        assert temporary.suffix == ".parquet"
        assert temporary.parent == tmp_path
        assert temporary.name.startswith(".")


def test_an_exception_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def fail_halfway() -> None:
        with writing(tmp_path / "a") as temporary:
            temporary.write_text("half")
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_halfway()
    assert (tmp_path / "a").read_text() == "old"
    assert leftovers(tmp_path) == ["a"]


def test_a_kill_in_the_middle_of_writing_leaves_the_old_file(tmp_path: Path) -> None:
    target = tmp_path / "model.onnx"
    target.write_bytes(b"old")
    code = (
        "import sys, time; from inspection.files import writing\n"
        "with writing(sys.argv[1]) as temporary:\n"
        "    temporary.write_bytes(b'half of the new one'); print('written', flush=True); time.sleep(60)\n"
    )
    with subprocess.Popen([sys.executable, "-c", code, str(target)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "written\n"
        process.send_signal(signal.SIGKILL)
        process.wait()
    assert target.read_bytes() == b"old"


def test_a_kill_at_any_moment_leaves_one_whole_file(tmp_path: Path) -> None:
    """Written over and over by a process that is killed somewhere: what is read is all one version."""
    target = tmp_path / "a.bin"
    code = (
        "import sys, itertools; from inspection.files import write_bytes\n"
        "for n in itertools.count():\n"
        "    write_bytes(sys.argv[1], bytes([n % 256]) * 300_000)\n"
    )
    for round_ in range(4):
        process = subprocess.Popen([sys.executable, "-c", code, str(target)])
        while not target.exists():
            time.sleep(0.01)
        time.sleep(0.05 + 0.03 * round_)
        process.kill()
        process.wait()
        data = target.read_bytes()
        assert len(data) == 300_000
        assert len(set(data)) == 1


def test_a_full_disk_is_our_error_and_leaves_the_old_file(tmp_path: Path) -> None:
    write_bytes(tmp_path / "a", b"old")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    ignored = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(OutputUnwritable, match="File too large") as caught:
            write_bytes(tmp_path / "a", bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, ignored)
    assert caught.value.where == str(tmp_path / "a")
    assert caught.value.exit_code == 6
    assert (tmp_path / "a").read_bytes() == b"old"
    assert leftovers(tmp_path) == ["a"]


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no /dev/full")
def test_no_space_left_is_our_error(tmp_path: Path) -> None:
    """ENOSPC as the kernel gives it: the block writes to a device without room."""
    with (
        pytest.raises(OutputUnwritable, match="No space left") as caught,
        writing(tmp_path / "a"),
        open("/dev/full", "wb", buffering=0) as full,
    ):
        full.write(b"x")
    assert "room" in str(caught.value.hint)
    assert leftovers(tmp_path) == []


@pytest.mark.skipif(not Path("/proc/self").exists(), reason="no /proc")
def test_a_folder_that_cannot_be_written_is_our_error() -> None:
    """/proc refuses new files to root as well."""
    with pytest.raises(OutputUnwritable) as caught:
        write_text("/proc/report.html", "x")
    assert caught.value.where == "/proc/report.html"


def test_a_folder_that_is_a_file_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("x")
    with pytest.raises(OutputUnwritable, match=r"file/a\.json"):
        write_text(tmp_path / "file" / "a.json", "x")


@pytest.mark.parametrize("path", ["", ".", "/"])
def test_no_file_name_is_our_error(path: str) -> None:
    with pytest.raises(OutputUnwritable, match="no file name"):
        write_text(path, "x")


def test_a_target_that_is_a_folder_is_our_error(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OutputUnwritable, match="directory"):
        write_text(tmp_path / "out", "x")
    assert leftovers(tmp_path) == ["out"]


def test_what_goes_wrong_in_reading_is_not_called_a_failed_write(tmp_path: Path) -> None:
    """The block may read other files; only failures to write are failures to write."""
    with pytest.raises(FileNotFoundError), writing(tmp_path / "a"):
        (tmp_path / "missing").read_bytes()


def test_images_are_found_in_the_order_of_their_paths_without_hidden_ones_and_other_files(tmp_path: Path) -> None:
    for name in ("b/2.PNG", "b/10.png", "a.jpg", ".hidden.png", ".git/x.png", "notes.txt", "drawn/a.png"):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).touch()
    named = tmp_path / "nowhere.png"  # whether it is there is said when it is read
    found = list(find_images([tmp_path, named], without=tmp_path / "drawn"))
    assert found == [tmp_path / "a.jpg", tmp_path / "b" / "10.png", tmp_path / "b" / "2.PNG", named]
    with pytest.raises(DataInvalid, match="no image"):
        list(find_images([tmp_path / ".git"], without=tmp_path / ".git"))


def test_a_file_system_that_takes_a_part_gets_the_rest(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    write = os.write
    monkeypatch.setattr(os, "write", lambda file, data: write(file, data[:3]))
    with (tmp_path / "a").open("wb", buffering=0) as file:
        assert write_all(file.fileno(), b"0123456789") == 10
    assert (tmp_path / "a").read_bytes() == b"0123456789"


def test_a_file_system_that_takes_nothing_and_says_nothing_is_a_full_disk(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(os, "write", lambda *_: 0)
    with (tmp_path / "a").open("wb", buffering=0) as file, pytest.raises(OSError, match="takes no more") as error:
        write_all(file.fileno(), b"0")
    assert error.value.errno == errno.ENOSPC
