"""Commands of this room."""


def judge() -> None:
    """To come."""


def info() -> None:
    """To come."""


def bench() -> None:
    """To come."""


def doctor() -> None:
    """To come."""
