"""The command `inspection`: one table of commands, each loaded only when it is called for.

The other rooms are named as text, so that this room imports none of them, and a line computer without torch has the
whole help and a clear answer for what it cannot run. A `commands` module imports nothing heavy at its top.
"""

from __future__ import annotations

import importlib
import os
import sys
from typing import Any

import typer

from inspection.allocator import keep_buffers
from inspection.errors import InspectionError, MissingExtra
from inspection.progress import console

# name, where it is, heading in the help
COMMANDS = (
    ("data", "datasets.commands:app", "Images in"),
    ("train", "training.commands:train", "Train"),
    ("export", "training.commands:export", "Train"),
    ("evaluate", "training.commands:evaluate", "Train"),
    ("judge", "inspection.commands:judge", "Judge"),
    ("score", "serve.commands:score", "Judge"),
    ("serve", "serve.commands:serve", "Judge"),
    ("run", "serve.line_commands:run", "Run the line"),
    ("recipe", "inspection.recipe.commands:app", "Run the line"),
    ("history", "inspection.record.commands:app", "Run the line"),
    ("info", "inspection.commands:info", "Look inside"),
    ("bench", "inspection.commands:bench", "Look inside"),
    ("doctor", "inspection.commands:doctor", "Look inside"),
)
TRAIN_ONLY = {
    "torch", "torchvision", "lightning_fabric", "albumentations", "onnx", "onnxscript", "scipy", "sklearn", "imagehash",
    "tensorboard", "matplotlib", "jinja2", "models", "training", "datasets",
}  # fmt: skip


# typer brings a click of its own in newer versions, so the class is asked of typer and not imported from click.
UsageErrors: Any = next(kind for kind in typer.BadParameter.__mro__ if kind.__name__ == "ClickException")


def build() -> typer.Typer:
    """The whole command line."""
    app = typer.Typer(
        name="inspection",
        help="Defect inspection: from a folder of images to a verdict on every part.",
        no_args_is_help=True,
        add_completion=False,
        pretty_exceptions_enable=False,
        rich_markup_mode="markdown",
    )
    for name, where, panel in COMMANDS:
        module, _, attribute = where.partition(":")
        target: Any = getattr(importlib.import_module(module), attribute)
        if isinstance(target, typer.Typer):
            app.add_typer(target, name=name, rich_help_panel=panel)
        else:
            app.command(name, rich_help_panel=panel)(target)
    return app


def main() -> None:
    """Runs the command line; an InspectionError becomes one message and its own exit code."""
    # OpenCV's own lines about a damaged file, with its source's line numbers, say less than the error that follows.
    os.environ.setdefault("OPENCV_LOG_LEVEL", "SILENT")
    keep_buffers()  # every command handles one image after another
    try:
        result = build()(standalone_mode=False)
        sys.stdout.flush()
    except ModuleNotFoundError as error:
        missing = (error.name or "").partition(".")[0]
        if missing not in TRAIN_ONLY:
            raise
        fail(
            MissingExtra(
                f"this command needs the package `{missing}`, which the plain install leaves out.",
                hint="Install it with: pip install 'lightsout-inspection[train]'",
            )
        )
    except InspectionError as error:
        fail(error)
    except UsageErrors as error:
        error.show()
        sys.exit(error.exit_code)
    except (typer.Abort, KeyboardInterrupt):
        console.print("stopped.")
        sys.exit(130)
    except BrokenPipeError:  # `inspection ... | head`: not 0, which would say that everything was judged, and is OK
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        sys.exit(1)
    else:
        sys.exit(result if isinstance(result, int) else 0)


def fail(error: InspectionError) -> None:
    """Prints `error` for a person and exits with its code."""
    console.print(f"[bold red]error[/] \\[{error.code}] {_plain(error.what)}", soft_wrap=True)
    if error.where:
        console.print(f"  where: {_plain(error.where)}", soft_wrap=True)
    if error.hint:
        console.print(f"  mend:  {_plain(error.hint)}", soft_wrap=True)
    sys.exit(error.exit_code)


def _plain(text: str) -> str:
    return text.replace("[", "\\[")
