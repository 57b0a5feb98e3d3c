"""A batch's summary on the terminal."""

from __future__ import annotations

import json

from rich.console import Console
from rich.table import Table

from inspection.overlay import COLOURS
from inspection.results import Verdict
from serve.score import Summary


def show(summary: Summary, *, as_json: bool) -> None:
    """Prints the summary to stdout."""
    if as_json:
        print(json.dumps(summary.to_dict()))
        return
    table = Table(box=None, pad_edge=False)
    table.add_column("verdict")
    table.add_column("images", justify="right")
    table.add_column("share", justify="right")
    table.add_column("")
    for verdict in Verdict:
        count = summary.counts[verdict.value]
        why = ", ".join(f"{code} {n:,}" for code, n in summary.errors.items()) if verdict is Verdict.ERROR else ""
        red, green, blue = COLOURS[verdict]
        table.add_row(
            f"[bold rgb({red},{green},{blue})]{verdict.value}", f"{count:,}", f"{count / summary.total:.1%}", why
        )
    console = Console(highlight=False)
    console.print(table)
    speed = (
        f", {summary.judged:,} judged now at {summary.judged / summary.seconds:.1f} images/s" if summary.judged else ""
    )
    console.print(f"{summary.out}: {summary.total:,} rows{speed}", soft_wrap=True)
