"""`inspection run`: the line."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

if TYPE_CHECKING:
    from inspection.line.line import Line


def run(
    recipe: Annotated[Path, typer.Argument(help="The recipe (.yaml) to begin with.", show_default=False)],
    name: Annotated[str | None, typer.Option(help="Of the line; by default the product.")] = None,
    host: Annotated[str, typer.Option(help="Address of the HTTP door; 0.0.0.0 for every one.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8090,
    simulate: Annotated[bool, typer.Option("--simulate", help="No hardware: made-up frames, a timer.")] = False,
    images: Annotated[Path | None, typer.Option(help="Simulate with the images of this folder.")] = None,
    takt: Annotated[str | None, typer.Option(help="Simulate with this takt: 1s, 50ms.")] = None,
    record: Annotated[Path | None, typer.Option(help="Folder to record all triggers and frames in.")] = None,
    record_limit: Annotated[str, typer.Option(help="Disk that the recording may take.")] = "10 GB",
    replay: Annotated[Path | None, typer.Option(help="A recording to judge again.")] = None,
    speed: Annotated[str, typer.Option(help="Of the replay: 1 its own takt, max as fast as it goes.")] = "max",
    duration: Annotated[str | None, typer.Option("--for", help="Stop after so long: 30s, 8h.")] = None,
    parts: Annotated[int | None, typer.Option(min=1, help="Stop after so many parts.")] = None,
    stopped: Annotated[bool, typer.Option("--stopped", help="Do not start it: a PLC does.")] = False,
    outputs: Annotated[
        bool, typer.Option("--outputs", help="Tell the recipe's outputs also of simulated or replayed verdicts.")
    ] = False,
) -> int:
    """Run the line: cameras in, one verdict per part out.

    SIGTERM or Ctrl-C: parts in flight get their verdicts; a second one stops at once. Exit code of a replay: 0 all
    verdicts are those of the recording, 10 some differ.
    """
    import logging
    from contextlib import ExitStack

    from inspection.errors import ConfigInvalid
    from inspection.progress import console
    from inspection.quantities import seconds, size
    from inspection.results import Verdict
    from serve.run import run as run_line
    from serve.run import told_to_stop
    from serve.server import bind

    def number(value: object, option: str, example: str) -> float | None:
        if value is None or (isinstance(value, (int, float)) and value > 0):
            return value
        raise ConfigInvalid(f"{value!r} cannot be read.", where=option, hint=f"Such as {example}.")

    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(name)s: %(message)s")
    if replay is not None:
        given = {"--simulate": simulate, "--record": record, "--for": duration, "--parts": parts, "--stopped": stopped}
        if idle := [option for option, value in {**given, "--name": name}.items() if value]:
            raise ConfigInvalid(f"a replay runs a recording to its end, without {', '.join(idle)}.", where="--replay")
        return _replay(recipe, replay, None if speed == "max" else number(_float(speed), "--speed", "2"), outputs)
    if outputs and not simulate:
        raise ConfigInvalid(
            "a line that runs in earnest tells its outputs anyway.", where="--outputs", hint="Leave the option out."
        )
    if (images is not None or takt is not None) and not simulate:
        raise ConfigInvalid("`--images` and `--takt` are of a simulation.", where="--simulate", hint="Add --simulate.")
    every = number(seconds(takt), "--takt", "50ms")
    lasts = number(seconds(duration), "--for", "30s")
    limit = number(size(record_limit), "--record-limit", "10 GB")
    with ExitStack() as held:
        stop = held.enter_context(told_to_stop())
        line = _line(recipe, name, simulate, images, every, outputs)
        listener = held.enter_context(bind(host, port))
        if record is not None and limit is not None:
            from inspection.cameras.recorder import Recorder

            about = {"line": line.name, "recipe": recipe.stem}
            line.recorder = held.enter_context(Recorder(record, limit=int(limit), about=about, alarm=line.alarm))
        address, at = listener.getsockname()[:2]
        url = f"http://{f'[{address}]' if ':' in address else address}:{at}"
        console.print(f"listening on {url}, opening {line.name} by {recipe}", soft_wrap=True)
        account = run_line(line, listener, stop, stopped=stopped, seconds=lasts, parts=parts)
    if not account:
        console.print("stopped before it was opened: no part came by.")
        return 0
    verdicts = " + ".join(f"{account[one.value]} {one.value}" for one in Verdict)
    console.print(f"stopped: {account['triggers']} triggers = {verdicts}", soft_wrap=True)
    console.print(f"record: {line.record.folder}", soft_wrap=True)
    if line.recorder is not None:
        console.print(f"recording: {line.recorder.folder} ({line.recorder.state})", soft_wrap=True)
    return 0


def _line(
    recipe: Path, name: str | None, simulate: bool, images: Path | None, takt: float | None, outputs: bool
) -> Line:
    from inspection.line.line import Line
    from inspection.line.simulate import simulated

    if simulate:
        return simulated(recipe, images=images, takt=takt, outputs=outputs, name=name)
    return Line(recipe, name=name)


def _replay(recipe: Path, recording: Path, speed: float | None, outputs: bool) -> int:
    from inspection.cameras.recording import Recording
    from inspection.line.again import Replay
    from inspection.progress import Meter, stdout

    replay = Replay(recipe, Recording(recording), speed=speed, outputs=outputs)
    with Meter("replay", len(replay.recording.index)) as meter:
        replay.run(meter.step)
    found = replay.differences()
    out = stdout()
    for one in found:
        out.print(one, soft_wrap=True, markup=False)
    same = "all verdicts are those of the recording" if not found else f"{len(found)} differ from the recording"
    out.print(f"{len(replay.results)} parts: {same}.")
    return 10 if found else 0


def _float(text: str) -> float | str:
    try:
        return float(text)
    except ValueError:
        return text
