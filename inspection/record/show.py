"""Prints what the record says: tables for people, JSON for programs."""

from __future__ import annotations

import dataclasses
import json
import sys
from typing import Any

from rich.markup import escape
from rich.table import Table

from inspection.progress import stdout
from inspection.record.verify import Proof

COLOURS = {"OK": "green", "NG": "red", "REVIEW": "yellow", "ERROR": "magenta"}


def print_verdicts(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """One line for each verdict."""
    if as_json:
        for row in rows:
            _json(row | {"triggered": row["triggered"].isoformat()})
        return
    table = Table("number", "triggered (UTC)", "part", "lot", "product", "verdict", "kind", "score", "reason", box=None)
    for row in rows:
        score = "" if row["score"] is None else f"{row['score']:.4g}"
        table.add_row(
            str(row["number"]),
            f"{row['triggered']:%Y-%m-%d %H:%M:%S}",
            _plain(row["part"]),
            _plain(row["lot"]),
            _plain(row["product"]),
            _coloured(row["verdict"]),
            _plain(row["kind"]),
            score,
            _plain(row["reason"]),
        )
    stdout().print(table)


def print_part(part: str, found: list[dict[str, Any]], *, as_json: bool) -> None:
    """All about one part."""
    if as_json:
        _json(found, indent=1)
        return
    console = stdout()
    if not found:
        console.print(f"The record knows no part `{part}`.", markup=False)
    for body in found:
        recipe = f"recipe {body['recipe']} {body['recipe_hash'][:12]}" if body["recipe"] else "no recipe"
        console.print(f"part {_plain(body['part'])}: {_coloured(body['verdict'])}, trigger {body['number']}, {recipe}")
        for name in ("reason", "kind", "lot", "product"):
            if body.get(name):
                console.print(f"  {name}: {body[name]}", markup=False)
        for view in body["views"]:
            score = "" if view["score"] is None else f", score {view['score']:.4g}"
            console.print(
                f"  view {view['view']}: {_coloured(view['verdict'])}{score} {_plain(view['reason'])}".rstrip()
            )
            for defect in view["defects"]:
                x, y, width, height = defect["box"]
                console.print(
                    f"    {_plain(defect['kind'])}: score {defect['score']:.4g}, {width} x {height} at {x}, {y}, "
                    f"{defect['area']} pixels"
                )
        console.print(f"  hash: {body['hash']}", markup=False)
        for file in body["files"]:
            console.print(f"  {file}", markup=False)


def print_summary(rows: list[dict[str, Any]], *, as_json: bool) -> None:
    """Counts and yields."""
    if as_json:
        _json(rows, indent=1)
        return
    table = Table(*(rows[0] if rows else ("total",)), box=None)
    for row in rows:
        table.add_row(*(f"{value:.2%}" if name == "yield" else _plain(value) for name, value in row.items()))
    stdout().print(table)


def print_proofs(proofs: list[Proof], *, as_json: bool) -> None:
    """What was proven of each line, and what was found broken."""
    if as_json:
        _json([dataclasses.asdict(proof) for proof in proofs], indent=1)
        return
    console = stdout()
    for proof in proofs:
        console.print(
            f"line {proof.line}: {proof.verdicts} verdicts, triggers {proof.first} to {proof.last}, "
            f"{proof.journaled} of them in the journal only, {proof.deleted} deleted by age before them",
            markup=False,
        )
        console.print(f"  head: {proof.head}", markup=False)
        if proof.after_head is not None:
            console.print(f"  verdicts after the given head: {proof.after_head}", markup=False)
        for problem in proof.problems[:20]:
            console.print(f"  {problem}", markup=False)


def _json(values: Any, indent: int | None = None) -> None:
    sys.stdout.write(json.dumps(values, indent=indent) + "\n")


def _coloured(verdict: str) -> str:
    return f"[{COLOURS[verdict]}]{verdict}[/]"


def _plain(value: object) -> str:
    return "" if value is None else escape(str(value))
