"""A bad input, the real command that gets it, and what that answers."""

from __future__ import annotations

import contextlib
import io
import json
import os
import re
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from inspection import cli

Make = Callable[[Path], list[str]]


@dataclass(frozen=True, kw_only=True)
class Case:
    """A bad input, and the command that gets it."""

    what: str
    make: Make  # lays it out in a folder and gives the command's arguments
    code: str  # the error's code, or the verdict where it is judged
    train: bool = False  # needs the train extra
    file_limit: int | None = None  # bytes after which writing fails, as on a full disk


@dataclass(frozen=True, kw_only=True)
class Answer:
    """What came back."""

    command: str
    exit_code: int
    out: str
    err: str

    @property
    def code(self) -> str:
        """The error's code, or the verdict of the one image that was judged."""
        if found := re.search(r"error \[([a-z-]+)\]", self.err):
            return found.group(1)
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            judged = json.loads(self.out)
            judged = judged[0] if isinstance(judged, list) else judged
            return str(judged.get("code") or judged["verdict"])
        return "none"

    @property
    def said(self) -> str:
        """The first line of the message."""
        if found := re.search(r"error \[[a-z-]+\] (.*)", self.err):
            return found.group(1).strip()
        with contextlib.suppress(ValueError, KeyError, IndexError, TypeError):
            judged = json.loads(self.out)
            judged = judged[0] if isinstance(judged, list) else judged
            return str(judged["reason"] or "")
        return ""


def answer(case: Case, folder: Path) -> Answer:
    """Makes the case in `folder` and runs the command on it; in this process, unless writing must fail."""
    arguments = case.make(folder)
    if case.file_limit is not None:
        limit = f"import resource; resource.setrlimit(resource.RLIMIT_FSIZE, ({case.file_limit},) * 2)\n"
        # Without the handler the kernel ends the process instead of failing the write.
        code = limit + "import signal; signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        code += "from inspection.cli import main; main()"
        done = subprocess.run(
            [sys.executable, "-c", code, *arguments],
            capture_output=True,
            text=True,
            env=os.environ | {"COLUMNS": "400"},
            check=False,
        )
        return Answer(command=arguments[0], exit_code=done.returncode, out=done.stdout, err=done.stderr)
    out, err = io.StringIO(), io.StringIO()
    before = sys.argv
    sys.argv = ["inspection", *arguments]
    try:
        with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
            cli.main()
    except SystemExit as end:
        return Answer(command=arguments[0], exit_code=int(end.code or 0), out=out.getvalue(), err=err.getvalue())
    finally:
        sys.argv = before
    return Answer(command=arguments[0], exit_code=0, out=out.getvalue(), err=err.getvalue())
