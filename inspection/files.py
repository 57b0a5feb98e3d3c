"""Finding images, and writing results so that a reader never sees half of one."""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterable, Iterator
from pathlib import Path

from inspection.errors import DataInvalid, OutputUnwritable
from inspection.pixels import ENDINGS


@contextlib.contextmanager
def writing(path: str | Path) -> Iterator[Path]:
    """Gives a temporary path beside `path`; what was written there becomes `path` in one step when the block ends well.

    A kill at any moment leaves the old file or the new one, never a part. After an exception `path` is untouched.

    Raises:
        OutputUnwritable: the folder cannot be written, or the disk is full.
    """
    path = Path(path)
    if not path.name:
        raise OutputUnwritable("this is no file name.", where=str(path), hint="Name the file to write.")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        # Same suffix, because some writers choose the format by it; a leading dot hides a leftover after a kill.
        temporary = path.with_name(f".{path.stem}-{secrets.token_hex(6)}{path.suffix}")
        temporary.touch(mode=0o666, exist_ok=False)  # the umask decides, as for any new file
    except OSError as error:
        raise unwritable(path, error) from error
    try:
        yield temporary
        with temporary.open("rb+") as file:
            os.fsync(file.fileno())
        temporary.replace(path)
    except OSError as error:
        if isinstance(error.filename, (str, bytes)) and Path(os.fsdecode(error.filename)) != temporary:
            raise  # the block failed at another file, which it may only have read
        raise unwritable(path, error) from error
    finally:
        temporary.unlink(missing_ok=True)


def write_text(path: str | Path, text: str) -> None:
    """Writes `text` (UTF-8) to `path` in one step. Raises OutputUnwritable."""
    with writing(path) as temporary:
        temporary.write_text(text, encoding="utf-8")


def write_bytes(path: str | Path, data: bytes) -> None:
    """Writes `data` to `path` in one step. Raises OutputUnwritable."""
    with writing(path) as temporary:
        temporary.write_bytes(data)


def write_all(file: int, data: bytes | memoryview) -> int:
    """Writes all of `data` to an open file; returns its bytes. Some file systems take a part of it, or nothing.

    Raises:
        OSError: the disk refuses it. Also where it takes nothing and does not say why: to ask again would never end.
    """
    rest = memoryview(data).cast("B")
    while rest:
        written = os.write(file, rest)
        if written == 0:
            raise OSError(errno.ENOSPC, "the disk takes no more")
        rest = rest[written:]
    return memoryview(data).nbytes


def unwritable(path: Path, error: OSError) -> OutputUnwritable:
    """The error for a failed write to `path`."""
    return OutputUnwritable(
        f"cannot write: {error.strerror or error}.",
        where=str(path),
        hint="Choose a folder that can be written and has room; what was there before is untouched.",
    )


def find_images(given: Iterable[Path], *, without: Path | None = None) -> Iterator[Path]:
    """The image files behind files and folders: files as they are, folders searched, sorted, without hidden ones.

    Args:
        given: what the user named.
        without: a folder that is not searched, because pictures are written into it.

    Raises:
        DataInvalid: a folder holds no image.
    """
    for path in given:
        if not path.is_dir():
            yield path  # whether it is there is found out when it is read, and said beside the others' verdicts
            continue
        found = sorted(
            file
            for file in path.rglob("*")
            if file.name.lower().endswith(ENDINGS)
            and not any(part.startswith(".") for part in file.relative_to(path).parts)
            and (without is None or not file.is_relative_to(without))
        )
        if not found:
            raise DataInvalid(
                "the folder holds no image.", where=str(path), hint=f"It is searched for {', '.join(ENDINGS)}."
            )
        yield from found
