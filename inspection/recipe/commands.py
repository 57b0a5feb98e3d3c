"""`inspection recipe`: what a recipe says, and what is wrong with it, before the line runs."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

app = typer.Typer(help="Check and explain recipes.", no_args_is_help=True)


@app.command()
def check(
    files: Annotated[list[Path], typer.Argument(metavar="FILE...", help="Recipes (.yaml).", show_default=False)],
    as_json: Annotated[bool, typer.Option("--json", help="Print JSON for programs.")] = False,
) -> int:
    """Find what is wrong before the line runs: each finding with its line and the mend.

    Exit code: 0 no errors (there may be warnings), 2 errors.
    """
    import json
    from dataclasses import asdict

    from rich.markup import escape

    from inspection.progress import stdout
    from inspection.recipe.check import check_file

    found = {file: check_file(file) for file in files}
    sound = all(finding.level != "error" for findings in found.values() for finding in findings)
    if as_json:
        listed = [
            {"file": str(file), "findings": [asdict(one) for one in findings]} for file, findings in found.items()
        ]
        print(json.dumps({"sound": sound, "recipes": listed}, indent=2))
        return 0 if sound else 2
    out = stdout()
    for file, findings in found.items():
        for one in findings:
            style = "bold red" if one.level == "error" else "yellow"
            key = f"{one.key}: " if one.key else ""
            out.print(f"{escape(one.where)}: [{style}]{one.level}[/] {escape(key + one.what)}", soft_wrap=True)
            if one.mend:
                out.print(f"    [dim]{escape(one.mend)}[/]", soft_wrap=True)
        errors = sum(one.level == "error" for one in findings)
        warnings = len(findings) - errors
        counted = f"{errors} error{'' if errors == 1 else 's'}, {warnings} warning{'' if warnings == 1 else 's'}"
        out.print(f"[bold]{escape(str(file))}[/]: {counted if findings else '[green]sound[/]'}", soft_wrap=True)
    return 0 if sound else 2


@app.command()
def explain(
    file: Annotated[Path, typer.Argument(help="A recipe (.yaml).", show_default=False)],
) -> None:
    """Say in plain words what will happen to every part."""
    from rich.markup import escape

    from inspection.progress import stdout
    from inspection.recipe.explain import sections
    from inspection.recipe.load import load

    out = stdout()
    for heading, lines in sections(load(file)).items():
        out.print(f"[bold]{escape(heading)}[/]", soft_wrap=True)
        for line in lines:
            out.print(f"  {escape(line)}", soft_wrap=True)


@app.command()
def schema() -> None:
    """Print the JSON schema of a recipe, for an editor that completes and checks while you write."""
    import json

    from inspection.recipe.recipe import Recipe

    print(
        json.dumps({"$schema": "https://json-schema.org/draft/2020-12/schema", **Recipe.model_json_schema()}, indent=2)
    )
