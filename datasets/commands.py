"""Commands of this room: `inspection data ...`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from inspection.errors import ConfigInvalid, DataInvalid

if TYPE_CHECKING:
    from rich.table import Table

    from datasets.check import Report

app = typer.Typer(no_args_is_help=True, help="Look at, check and split images.")

Data = Annotated[
    str, typer.Argument(help="A folder of images, a manifest (.csv, .parquet), or elpv.", show_default=False)
]
LayoutOption = Annotated[
    str | None,
    typer.Option(help="How to read the folder (mvtec, folders, pairs, coco, yolo, voc); by default found by looking."),
]


@app.command()
def check(
    data: Data,
    layout: LayoutOption = None,
    json: Annotated[bool, typer.Option("--json", help="Everything that was found, as JSON.")] = False,
    html: Annotated[Path | None, typer.Option(help="Also write a page with thumbnails.")] = None,
    near: Annotated[
        int, typer.Option(min=0, max=128, help="Bits of 256 in which hashes of near duplicates may differ.")
    ] = 8,
    strict: Annotated[bool, typer.Option("--strict", help="Warnings fail as well.")] = False,
) -> None:
    """Check images and annotations before training.

    Finds images that do not open, copies and near copies (also across splits and groups), masks and boxes that do not
    fit, and classes with too few. Exit code 0: no errors; 5: errors, or with --strict warnings.
    """
    import json as encoder

    from datasets.check import Severity
    from datasets.check import check as look
    from datasets.opening import open_dataset

    report = look(open_dataset(data, layout), near=near)
    if html:
        from datasets.page import write_page

        write_page(report, html)
    if json:
        print(encoder.dumps(report.to_dict(), indent=2, ensure_ascii=False))
    else:
        _print(report)
        if html:
            print(f"page: {html}")
    if report.count(Severity.ERROR) or (strict and report.count(Severity.WARNING)):
        raise typer.Exit(DataInvalid.exit_code)


@app.command()
def split(
    data: Data,
    out: Annotated[Path, typer.Option(help="The manifest to write (.csv or .parquet).", show_default=False)],
    layout: LayoutOption = None,
    fractions: Annotated[
        str, typer.Option(help="Shares of train, calibration and test, where images have no split yet.")
    ] = "0.6,0.2,0.2",
    calibration: Annotated[
        float, typer.Option(help="Share of train for calibration, where the data comes with train and test alone.")
    ] = 0.25,
    again: Annotated[bool, typer.Option("--again", help="Forget the splits that the data comes with.")] = False,
    seed: Annotated[int, typer.Option(min=0, help="The same seed gives the same split.")] = 0,
) -> None:
    """Split images into train, calibration and test, and write the manifest.

    Images of one lot (else part) stay together; good ones and every kind of defect are spread evenly. Splits that the
    data comes with are kept.
    """
    from dataclasses import replace

    from rich.console import Console

    from datasets.opening import open_dataset
    from datasets.sample import SPLITS
    from datasets.split import assign, straddling

    try:
        shares = dict(zip(SPLITS, (float(share) for share in fractions.split(",")), strict=True))
    except ValueError as error:
        raise ConfigInvalid(
            f"`{fractions}` are not three shares.", where="--fractions", hint="For example: 0.6,0.2,0.2"
        ) from error
    dataset = open_dataset(data, layout)
    if again:
        dataset = dataset.with_samples(replace(sample, split=None) for sample in dataset)
    dataset = assign(dataset, shares, seed=seed, calibration_share=calibration)
    dataset.write(out)
    Console(highlight=False).print(_counts(dataset.counts()))
    groups = len({sample.group for sample in dataset})
    print(f"{len(dataset)} images in {groups} groups: {out}")
    parted = straddling(dataset)
    if parted:
        print(f"warning: the splits that the data came with part {len(parted)} groups, such as {next(iter(parted))}.")


@app.command()
def preview(
    data: Data,
    out: Annotated[Path, typer.Option(help="The contact sheet to write (.png).", show_default=False)],
    layout: LayoutOption = None,
    images: Annotated[int, typer.Option(min=1, max=200, help="How many images.")] = 10,
    versions: Annotated[int, typer.Option(min=0, max=20, help="Augmented versions of each; 0: as they are.")] = 5,
    size: Annotated[str | None, typer.Option(help="Network input, WIDTHxHEIGHT; by default from the images.")] = None,
    config: Annotated[Path | None, typer.Option(help="Training settings (YAML), for `augment` and `input`.")] = None,
    seed: Annotated[int, typer.Option(min=0, help="Other images and other changes.")] = 0,
) -> None:
    """Draw what the network will be fed: images as prepared and augmented, with masks and boxes."""
    import cv2

    from datasets.opening import open_dataset
    from datasets.pictures import sheet
    from datasets.settings import read_settings
    from inspection.files import write_bytes

    if out.suffix.lower() != ".png":
        raise ConfigInvalid("the contact sheet is a PNG.", where=str(out), hint="Give a name that ends in .png.")
    dataset = open_dataset(data, layout)
    spec, options = read_settings(dataset, config, size)
    picture = sheet(dataset, spec, options if versions else None, images=images, versions=versions, seed=seed)
    _, encoded = cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))
    write_bytes(out, encoded.tobytes())
    colour = "mono" if spec.channels == 1 else "RGB"
    print(f"{spec.width} x {spec.height} {colour} {spec.bit_depth} bit, {spec.resize.value}: {out}")


def _print(report: Report) -> None:
    from rich.console import Console
    from rich.markup import escape
    from rich.table import Table

    from datasets.check import MENDS, Severity

    console = Console(highlight=False)
    dataset = report.dataset
    pixels = ", ".join(f"{count} {name}" for name, count in report.pixels.items()) or "none can be read"
    console.print(f"[bold]{escape(dataset.name)}[/] ({dataset.layout}): {len(dataset)} images; {pixels}")
    if report.sizes:
        (width, height), usual = report.sizes.most_common(1)[0]
        more = f" and {len(report.sizes) - 1} more sizes" if len(report.sizes) > 1 else ""
        console.print(f"size: {usual} of {width} x {height}{more}")
    if dataset.kinds:
        console.print(f"kinds: {escape(', '.join(dataset.kinds))}")
    console.print(_counts(dataset.counts()))
    if not report.findings:
        console.print("[green]nothing was found to be wrong.[/]")
        return
    table = Table("", "check", "found", "what", "for example", show_edge=False)
    colours = {Severity.ERROR: "bold red", Severity.WARNING: "yellow", Severity.NOTE: "cyan"}
    by_code = report.by_code()
    for code, findings in by_code.items():
        first = findings[0]
        names = ", ".join(report.shown(path) for path in first.paths[:2])
        colour = colours[first.severity]
        table.add_row(
            f"[{colour}]{first.severity.value}[/]", code, str(len(findings)), escape(first.what), escape(names)
        )
    console.print(table)
    for code in by_code:
        console.print(f"  [bold]{code}[/]: {escape(MENDS[code])}", soft_wrap=True)
    console.print(f"{report.count(Severity.ERROR)} errors, {report.count(Severity.WARNING)} warnings")


def _counts(counts: dict[str, dict[str, int]]) -> Table:
    from rich.table import Table

    known = sorted({name for row in counts.values() for name in row}, reverse=True)
    table = Table("split", *known, "all", show_edge=False)
    for name in sorted(counts, key=["train", "calibration", "test", "unsplit"].index):
        row = counts[name]
        table.add_row(name, *(str(row.get(column, "")) for column in known), str(sum(row.values())))
    return table
