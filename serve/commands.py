"""Commands of this room."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

Model = Annotated[Path, typer.Argument(help="The model file (.onnx).", show_default=False)]
Provider = Annotated[str, typer.Option(help="Device: cpu, cuda, tensorrt, openvino, or auto for the best there is.")]
Threads = Annotated[int | None, typer.Option(help="Threads of one network run; by default one for each usable core.")]


def serve(
    model: Model,
    host: Annotated[
        str, typer.Option(help="Address to listen at; 0.0.0.0 for every one of this machine.")
    ] = "127.0.0.1",
    port: Annotated[int, typer.Option(min=0, max=65535, help="0: any that is free.")] = 8080,
    provider: Provider = "auto",
    threads: Threads = None,
    max_bytes: Annotated[int, typer.Option(min=1, help="Largest body of a request.")] = 64 << 20,
    max_pixels: Annotated[int, typer.Option(min=1, help="Largest image, width x height.")] = 175_000_000,
    concurrency: Annotated[int, typer.Option(min=1, help="Images in work at once.")] = 2,
    queue: Annotated[int, typer.Option(min=0, help="Requests that may wait; the next one is told to come again.")] = 16,
) -> None:
    """Judge images over HTTP.

    POST an image's bytes to /v1/inspect. SIGTERM stops the service after everything in flight has its answer.
    """
    from inspection.inspector import Inspector
    from inspection.progress import console
    from serve.limits import Limits
    from serve.server import bind, run
    from serve.service import Service

    listener = bind(host, port)
    address, at = listener.getsockname()[:2]
    url = f"http://{f'[{address}]' if ':' in address else address}:{at}"
    console.print(f"listening on {url}, loading {model}", soft_wrap=True)

    def tell(service: Service) -> None:
        if service.inspector is None:
            return
        card, device = service.inspector.card, service.inspector.provider
        seconds = sum(service.inspector.start_seconds.values())
        console.print(f"ready: {card.name} ({card.network}) on {device}, loaded and proven in {seconds:.1f} s")
        console.print(f"  curl --data-binary @part.png {url}/v1/inspect", soft_wrap=True)

    limits = Limits(max_bytes=max_bytes, max_pixels=max_pixels, concurrency=concurrency, queue=queue)
    service = Service(
        lambda: Inspector(model, provider=provider, threads=threads), limits, name=model.stem, on_change=tell
    )
    run(service, listener)
    console.print("stopped; every image that was taken has its answer.")


def score(
    model: Model,
    pictures: Annotated[
        list[Path],
        typer.Argument(
            help="Image files, folders (searched through), or CSV lists with a column `path`.", show_default=False
        ),
    ],
    out: Annotated[Path, typer.Option(help="The table to write: .parquet or .csv.", show_default=False)],
    overlays: Annotated[
        Path | None, typer.Option(help="Folder for a picture of everything that is NG or REVIEW.")
    ] = None,
    batch: Annotated[int, typer.Option(min=1, help="Images that the network sees at once.")] = 8,
    provider: Provider = "auto",
    threads: Threads = None,
    restart: Annotated[bool, typer.Option("--restart", help="Forget what an interrupted run has judged.")] = False,
    as_json: Annotated[bool, typer.Option("--json", help="Print the summary as JSON.")] = False,
) -> int:
    """Judge many images into a table, one row for each; goes on where an interrupted run stopped.

    Exit code 0: every image was judged (whatever the verdicts). 3: some could not be; their rows say why.
    """
    from serve.score import run
    from serve.summary import show

    summary = run(
        model, pictures, out, overlays=overlays, batch=batch, provider=provider, threads=threads, restart=restart
    )
    show(summary, as_json=as_json)
    return 3 if summary.counts["ERROR"] else 0
