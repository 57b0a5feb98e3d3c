"""`inspection info`: the card of a model file, for a person."""

from __future__ import annotations

import json
from pathlib import Path

from rich.markup import escape
from rich.table import Table

from inspection.modelfile import Bound, ModelCard, Parity, parse_card, read_model
from inspection.progress import stdout


def show(path: Path, *, as_json: bool) -> None:
    """Prints the card. Raises ModelInvalid."""
    from hashlib import sha256

    data = read_model(path)
    card = parse_card(data, name=str(path))
    digest = sha256(data).hexdigest()
    if as_json:
        values = card.model_dump(mode="json")
        if values["certificate"] is not None:  # the images themselves are long, and no program asks for them here
            for golden in values["certificate"]["goldens"]:
                golden.pop("pixels")
        print(json.dumps({"file": str(path), "sha256": digest, "bytes": len(data), **values}, indent=2))
        return
    table = Table(box=None, show_header=False, pad_edge=False, padding=(0, 2, 0, 0))
    table.add_column(style="bold", no_wrap=True)
    table.add_column(overflow="fold")
    for heading, lines in sections(card).items():
        for index, line in enumerate(lines):
            table.add_row(heading if index == 0 else "", escape(line))
    out = stdout()
    out.print(f"[bold]{escape(card.name)}[/]  {escape(str(path))}, {len(data) / 1e6:.1f} MB", soft_wrap=True)
    out.print(f"sha256 {digest}", soft_wrap=True)
    out.print(table)


def sections(card: ModelCard) -> dict[str, list[str]]:
    """Heading -> lines, in the order in which a quality engineer asks."""
    spec = card.input
    colour = "mono" if spec.channels == 1 else "RGB"
    takes = [f"{colour} images of {spec.bit_depth} bit, brought to {spec.width} x {spec.height} by {spec.resize}"]
    if card.tiling is not None:
        takes = [
            f"{colour} images of {spec.bit_depth} bit, resized by {card.tiling.scale:g} and cut into tiles of "
            f"{spec.width} x {spec.height} with {card.tiling.overlap:.0%} overlap"
        ]
    made = {
        "defect": "whether a part is defective",
        "kinds": "which kind of defect it is (it never saw a good part)",
    }
    found = {
        "network": [f"{card.network}, {card.precision}: {made[card.task]}"],
        "takes": takes,
        "classes": [", ".join(card.classes)] if card.classes else ["none: it does not tell kinds of defects apart"],
        "thresholds": _thresholds(card),
        "promises": [bound for side in card.calibration.bounds for bound in _bound(side)] if card.calibration else [],
        "certificate": [line for parity in card.certificate.parities for line in _parity(parity)]
        if card.certificate
        else ["none: nobody proved that this file judges like the network it came from"],
        "data": [f"{card.data.name}, fingerprint {card.data.fingerprint}"]
        + [
            f"{split}: " + ", ".join(f"{count} {what}" for what, count in counts.items())
            for split, counts in card.data.counts.items()
        ],
        "training": [", ".join(f"{key} {value}" for key, value in card.training.items())],
        "weights": [f"{card.weights}; licence: {card.weights_licence}"],
        "versions": [", ".join(f"{name} {version}" for name, version in card.versions.items())],
        "made": [card.created],
    }
    if card.certificate:
        found["certificate"].append(
            f"{len(card.certificate.goldens)} golden images are scored again at every start, and must agree to "
            f"{card.certificate.golden_tolerance:g}"
        )
    return {heading: [line for line in lines if line] for heading, lines in found.items() if any(lines)}


def _thresholds(card: ModelCard) -> list[str]:
    point = card.operating_point
    if point is None:
        return ["none: every verdict is REVIEW"]
    lines = [f"OK below {point.ok_below:.6g}, NG from {point.ng_above:.6g} on, REVIEW between"]
    if point.ok_below >= point.ng_above:
        lines = [f"OK below {point.ng_above:.6g}, NG from there on"]
    if point.pixel_above is not None:
        lines.append(f"a place belongs to a defect from {point.pixel_above:.6g} on")
    if card.calibration is not None:
        good, bad = len(card.calibration.good), len(card.calibration.bad)
        lines.append(f"chosen from {good} good and {bad} bad images ({card.calibration.method})")
    return lines


def _bound(bound: Bound) -> list[str]:
    what = {"escape": "bad parts called OK", "overkill": "good parts called NG"}[bound.kind]
    if bound.total == 0:
        return [f"{bound.kind}: unknown, no such part was there to count"]
    line = (
        f"{bound.kind}: {bound.errors} of {bound.total} {what}; "
        f"at most {bound.upper:.2%} with {bound.confidence:.0%} confidence"
    )
    if bound.asked is None:
        return [line]
    kept = "held" if bound.held else "NOT proven"
    more = (
        f"; {bound.needed} more such parts without an error would prove it" if bound.needed and not bound.held else ""
    )
    return [line, f"  asked: at most {bound.asked:.2%}, {kept}{more}"]


def _parity(parity: Parity) -> list[str]:
    maps = "" if parity.max_map_difference is None else f", map {parity.max_map_difference:.1e}"
    return [
        f"{parity.provider} {parity.precision}: {parity.flips} verdicts flipped on {parity.images} images, "
        f"scores moved by at most {parity.max_difference:.1e}{maps} (allowed {parity.tolerance:.0e})"
    ]
