"""`inspection history`: what the record knows."""

from __future__ import annotations

from enum import StrEnum
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

if TYPE_CHECKING:
    from inspection.record.history import Wanted

app = typer.Typer(help="Look into the record of a line, also while it runs.", no_args_is_help=True)

RecordArgument = Annotated[
    str, typer.Argument(metavar="RECORD", help="Folder of a record, or the URL of a database.", show_default=False)
]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for programs instead of a table for people.")]
VerdictOption = Annotated[str | None, typer.Option(help="Only OK, NG, REVIEW or ERROR.")]
Part = Annotated[str | None, typer.Option(help="Only this part.")]
Lot = Annotated[str | None, typer.Option(help="Only this lot.")]
Product = Annotated[str | None, typer.Option(help="Only this product.")]
Line = Annotated[str | None, typer.Option(help="Only this line, where several share a database.")]
Since = Annotated[str | None, typer.Option(help="From then on: 2026-11-25, 2026-11-25T14:00 (UTC), or 8h ago.")]
Until = Annotated[str | None, typer.Option(help="Before then.")]


class By(StrEnum):
    """What a summary has a row for."""

    LOT = "lot"
    PRODUCT = "product"
    HOUR = "hour"
    RECIPE = "recipe"
    LINE = "line"


@app.command()
def show(
    record: RecordArgument,
    verdict: VerdictOption = None,
    part: Part = None,
    lot: Lot = None,
    product: Product = None,
    line: Line = None,
    since: Since = None,
    until: Until = None,
    limit: Annotated[int, typer.Option(min=1, help="At most so many.")] = 50,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object a line, one for each verdict.")
    ] = False,
) -> None:
    """Show verdicts, newest first."""
    from inspection.record.history import History
    from inspection.record.show import print_verdicts

    wanted = _wanted(verdict, part, lot, product, line, since, until)
    with History(record) as history:
        print_verdicts(history.verdicts(wanted, limit=limit), as_json=as_json)


@app.command("part")
def about_part(
    record: RecordArgument,
    part: Annotated[str, typer.Argument(help="Serial or barcode, or the number of its trigger.", show_default=False)],
    as_json: Json = False,
) -> int:
    """Show all about one part, and the files of its images. Exit code 1: the record does not know it."""
    from inspection.record.history import History
    from inspection.record.show import print_part

    with History(record) as history:
        found = history.part(part)
    print_part(part, found, as_json=as_json)
    return 0 if found else 1


@app.command()
def summary(
    record: RecordArgument,
    by: Annotated[By | None, typer.Option(help="A row for each of these.")] = None,
    lot: Lot = None,
    product: Product = None,
    line: Line = None,
    since: Since = None,
    until: Until = None,
    as_json: Json = False,
) -> None:
    """Count verdicts; the yield is OK of all parts."""
    from inspection.record.history import History
    from inspection.record.show import print_summary

    wanted = _wanted(None, None, lot, product, line, since, until)
    with History(record) as history:
        print_summary(history.summary(wanted, by=by.value if by else None), as_json=as_json)


@app.command()
def export(
    record: RecordArgument,
    out: Annotated[Path, typer.Option(help="The file to write: .parquet or .csv.", show_default=False)],
    verdict: VerdictOption = None,
    lot: Lot = None,
    product: Product = None,
    line: Line = None,
    since: Since = None,
    until: Until = None,
) -> None:
    """Write verdicts into a table, with all that is known of each in its column `body` as JSON."""
    from inspection.progress import console
    from inspection.record.history import History

    wanted = _wanted(verdict, None, lot, product, line, since, until)
    with History(record) as history:
        console.print(f"{history.export(wanted, out)} verdicts written to {out}", markup=False)


@app.command()
def verify(
    record: RecordArgument,
    head: Annotated[
        str | None, typer.Option(help="A hash kept elsewhere (outputs carry it): proves that the end was not cut off.")
    ] = None,
    as_json: Json = False,
) -> None:
    """Recompute the hash chain over all verdicts. Exit code 0: nothing is missing or altered; 8: something is."""
    from inspection.record.folder import find
    from inspection.record.show import print_proofs
    from inspection.record.verify import ChainBroken
    from inspection.record.verify import verify as prove

    url, folder = find(record)
    proofs = prove(url, folder, head=head.strip().lower() if head else None)
    print_proofs(proofs, as_json=as_json)
    problems = [problem for proof in proofs for problem in proof.problems]
    if problems:
        more = f" ({len(problems) - 1} more after this one.)" if len(problems) > 1 else ""
        raise ChainBroken(
            problems[0] + more,
            where=record,
            hint="Compare with a copy from before; what stands before the first break is proven.",
        )


def _wanted(
    verdict: str | None,
    part: str | None,
    lot: str | None,
    product: str | None,
    line: str | None,
    since: str | None,
    until: str | None,
) -> Wanted:
    from inspection.errors import ConfigInvalid
    from inspection.record.history import Wanted, when
    from inspection.results import Verdict

    values: dict[str, Any] = {"part": part, "lot": lot, "product": product, "line": line}
    if verdict is not None:
        if verdict.upper() not in Verdict.__members__:
            raise ConfigInvalid("this is no verdict.", where=f"--verdict {verdict}", hint="OK, NG, REVIEW or ERROR.")
        values["verdict"] = Verdict(verdict.upper())
    values |= {"since": when(since) if since else None, "until": when(until) if until else None}
    return Wanted(**values)
