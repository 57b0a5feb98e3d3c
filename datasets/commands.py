"""Commands of this room."""

import typer

app = typer.Typer(help="Look at, check and split images.")


@app.callback()
def main() -> None:
    """Look at, check and split images."""
