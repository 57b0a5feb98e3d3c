"""What of a source's address may stand in messages, logs and facts."""

from __future__ import annotations

import re

# Cameras that take their login as parameters: `?loginuse=admin&loginpas=secret`, `?user=...&pwd=...`, `?token=...`.
_SECRET = re.compile(r"(?i)([?&;][^=&;#]*(?:pas|pwd|secret|token|key|auth|login|user)[^=&;#]*=)[^&;#]*")


def without_password(url: str) -> str:
    """The URL without user, password and parameters that may be secret; whatever is no URL stays as it is."""
    scheme, there, rest = url.partition("://")
    if not there:
        return url
    authority = re.split("[/?#]", rest, maxsplit=1)[0]
    _, at, host = authority.rpartition("@")
    if at:
        rest = host + rest[len(authority) :]
    elif ":" in authority and "@" in rest:  # a `/`, `?` or `#` in the password that nobody has escaped
        rest = f"...@{rest.rpartition('@')[2]}"
    rest = _SECRET.sub(r"\g<1>...", rest)
    return f"{scheme}://{rest}"
