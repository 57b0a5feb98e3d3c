"""Commands of this room."""


def serve() -> None:
    """To come."""


def score() -> None:
    """To come."""
