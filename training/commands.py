"""Commands of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import typer

SCHEMA_OF = "The settings' JSON schema, for editors; nothing is trained."


def train(
    data: Annotated[
        str | None, typer.Argument(help="A folder of images, a manifest (.csv, .parquet), or elpv.", show_default=False)
    ] = None,
    out: Annotated[Path | None, typer.Option(help="The run folder. A stopped run that stands there goes on.")] = None,
    model: Annotated[
        str | None, typer.Option(help="defectnet, classifier or patchcore; by default what the data allows.")
    ] = None,
    config: Annotated[Path | None, typer.Option(help="Settings in YAML; options given here go before it.")] = None,
    budget: Annotated[str | None, typer.Option(help="Time for the whole run: 90s, 20m, 2h.")] = None,
    epochs: Annotated[float | None, typer.Option(help="Passes over the training images.")] = None,
    seed: Annotated[int | None, typer.Option(help="Of everything that is random, but the split.")] = None,
    size: Annotated[str | None, typer.Option(help="Network input, WIDTHxHEIGHT; by default from the images.")] = None,
    max_escape: Annotated[str | None, typer.Option(help="Highest share of bad parts called OK: 0.5%.")] = None,
    max_overkill: Annotated[str | None, typer.Option(help="Highest share of good parts called NG: 2%.")] = None,
    confidence: Annotated[str | None, typer.Option(help="Of both promises.")] = None,
    set_: Annotated[
        list[str] | None, typer.Option("--set", help="Any other setting: KEY=VALUE, as optimiser.rate=0.001.")
    ] = None,
    layout: Annotated[
        str | None, typer.Option(help="How to read the folder; by default found by looking at it.")
    ] = None,
    restart: Annotated[bool, typer.Option("--restart", help="Remove the run in --out and train anew.")] = False,
    print_config: Annotated[
        bool, typer.Option("--print-config", help="The settings as YAML; nothing is trained.")
    ] = False,
    print_schema: Annotated[bool, typer.Option("--print-schema", help=SCHEMA_OF)] = False,
) -> None:
    """Train a network on images of good and bad parts.

    What the data allows decides the network: masks, labels, or good images alone. The run folder holds all that
    `inspection export` needs. A run that was stopped or killed goes on when the same command is given again.
    """
    import json

    from inspection.errors import ConfigInvalid
    from training.config import TrainConfig, parse_change, read_config, to_yaml

    if print_schema:
        print(json.dumps(TrainConfig.model_json_schema(), indent=2))
        return
    given: dict[str, Any] = {
        "model.kind": model,
        "budget": budget,
        "epochs": epochs,
        "seed": seed,
        "asks.max_escape": max_escape,
        "asks.max_overkill": max_overkill,
        "asks.confidence": confidence,
    }
    if size is not None:
        width, cross, height = size.lower().partition("x")
        if not (cross and width.strip().isdigit() and height.strip().isdigit()):
            raise ConfigInvalid(f"`{size}` is no size.", where="--size", hint="For example: --size 640x256")
        given |= {"input.width": int(width), "input.height": int(height)}
    given = {key: value for key, value in given.items() if value is not None}
    settings = read_config(config, {**given, **dict(parse_change(text) for text in set_ or [])})
    if print_config:
        print(to_yaml(settings), end="")
        return
    if data is None or out is None:
        missing = "DATA" if data is None else "--out"
        raise ConfigInvalid(f"{missing} is missing.", hint="inspection train DATA --out RUN")

    from datasets import open_dataset
    from inspection.progress import console
    from training.fit import fit, is_first
    from training.summary import summary

    def say(text: str) -> None:
        console.print(text, markup=False, soft_wrap=True)

    run = fit(settings, open_dataset(data, layout), out, restart=restart, say=say)
    for line in summary(run) if is_first() else ():
        print(line)


def export(
    run: Annotated[Path, typer.Argument(help="A finished run folder.", show_default=False)],
    out: Annotated[Path, typer.Option(help="The model file to write.")],
    precision: Annotated[str, typer.Option(help="Numbers inside the network: fp32, fp16 or int8.")] = "fp32",
    max_escape: Annotated[str | None, typer.Option(help="Highest share of bad parts called OK: 0.5%.")] = None,
    max_overkill: Annotated[str | None, typer.Option(help="Highest share of good parts called NG: 2%.")] = None,
    confidence: Annotated[str | None, typer.Option(help="Of each promise; by default the run's.")] = None,
    cost_escape: Annotated[float | None, typer.Option(help="Cost of one bad part called OK, instead of rates.")] = None,
    cost_overkill: Annotated[float | None, typer.Option(help="Cost of one good part called NG.")] = None,
    provider: Annotated[str, typer.Option(help="Device to prove: cpu, cuda, ..., or all that are granted.")] = "all",
    images: Annotated[int, typer.Option(min=1, help="Most test images that the proof is made on.")] = 2000,
    json_: Annotated[bool, typer.Option("--json", help="Print the card instead.")] = False,
) -> None:
    """Write a run's network as one model file, proven to judge like the network.

    The file carries its thresholds, what they promise, and the proof. It is written only if no verdict flips and no
    score moves by more than the tolerance, on real images, by the runtime that the line uses.
    """
    from inspection.errors import ConfigInvalid
    from training.certify import TOLERANCE
    from training.export import asks_of, export
    from training.run import Run
    from training.telling import model_lines, say

    if precision not in TOLERANCE:
        raise ConfigInvalid(
            f"`{precision}` is no precision.", where="--precision", hint=f"One of {', '.join(TOLERANCE)}."
        )
    trained = Run(run)
    asks = asks_of(
        trained.config.asks,
        max_escape=max_escape,
        max_overkill=max_overkill,
        confidence=confidence,
        escape_cost=cost_escape,
        overkill_cost=cost_overkill,
    )
    card = export(trained, out, precision, asks=asks, provider=provider, cap=images, say=say)
    if json_:
        print(card.model_dump_json(indent=2, exclude={"certificate": {"goldens": {"__all__": {"pixels"}}}}))
        return
    for line in model_lines(card, out):
        print(line)


def evaluate(
    target: Annotated[
        Path, typer.Argument(help="A run folder or a model file.", metavar="RUN|MODEL", show_default=False)
    ],
    data: Annotated[
        str | None, typer.Argument(help="What to judge; by default the run's own data.", show_default=False)
    ] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder for report.html and evaluation.json; by default RUN/evaluation.")
    ] = None,
    split: Annotated[str, typer.Option(help="Which images: test, calibration or train.")] = "test",
    seeds: Annotated[int, typer.Option(min=1, help="Compare this many trainings that differ in their seed.")] = 1,
    provider: Annotated[str, typer.Option(help="Device: cpu, cuda, ..., or auto.")] = "auto",
    json_: Annotated[bool, typer.Option("--json", help="Print the whole result as JSON.")] = False,
) -> None:
    """Judge test images with the model file and say how good it is, in counts and bounds.

    Writes one self-contained HTML report and the same figures as JSON.
    """
    from datasets import SPLITS
    from inspection.errors import ConfigInvalid
    from training.evaluate import evaluate, folder_of
    from training.telling import evaluation_lines, say

    if split not in SPLITS:
        raise ConfigInvalid(f"`{split}` is no split.", where="--split", hint=f"One of {', '.join(SPLITS)}.")
    found = evaluate(target, data, out=out, split=split, seeds=seeds, provider=provider, say=say)
    if json_:
        print(found.model_dump_json(indent=2))
        return
    for line in evaluation_lines(found, folder_of(target, out)):
        print(line)
