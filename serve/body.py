"""From a request's body to the bytes of one image, within bounds."""

from __future__ import annotations

import asyncio

from python_multipart.exceptions import FormParserError
from python_multipart.multipart import Field, File, create_form_parser
from starlette.requests import Request

from inspection.errors import ImageTooLarge
from serve.limits import Limits
from serve.problems import BodyTooSlow, MediaTypeUnsupported, RequestInvalid

FORM = "multipart/form-data"
FIELD = "image"


async def read(request: Request, limits: Limits) -> bytes:
    """The whole body, at most `limits.max_bytes` of it in memory at any time.

    Raises:
        ImageTooLarge: by its Content-Length before a byte is read, or as soon as a chunked body passes the limit.
        MediaTypeUnsupported: it says that it is text, JSON or the like.
        BodyTooSlow: it took longer than `limits.body_seconds`.
    """
    kind = media_type(request)
    # The bytes decide what image it is; only what says to be something else altogether is refused.
    # `curl --data-binary @part.png` says application/x-www-form-urlencoded when it is told nothing.
    if not (
        kind.startswith("image/") or kind in ("", "application/octet-stream", "application/x-www-form-urlencoded", FORM)
    ):
        raise MediaTypeUnsupported(
            f"a body of type {kind} is neither an image nor a form.",
            where="Content-Type",
            hint=f"Send the image file's bytes as they are, or {FORM} with the field `{FIELD}`.",
        )
    if int(request.headers.get("content-length", "0")) > limits.max_bytes:
        raise _too_large(limits)
    chunks: list[bytes] = []
    size = 0
    try:
        async with asyncio.timeout(limits.body_seconds):
            async for chunk in request.stream():
                size += len(chunk)
                if size > limits.max_bytes:
                    raise _too_large(limits)
                chunks.append(chunk)
    except TimeoutError as error:
        raise BodyTooSlow(
            f"after {limits.body_seconds:g} s only {size:,} bytes had come.", where="body", hint="Look at the network."
        ) from error
    return b"".join(chunks)


def media_type(request: Request) -> str:
    """What the body says that it is, without parameters."""
    return request.headers.get("content-type", "").partition(";")[0].strip().lower()


def image_in_form(content_type: str, body: bytes) -> tuple[bytes, str | None]:
    """The field `image` of a multipart form, and the file's name where the client gives one.

    Raises:
        RequestInvalid: damaged or cut off; no such field, or several.
    """
    found: list[tuple[bytes, str | None]] = []
    others: list[str] = []

    def on_file(file: File) -> None:
        if file.field_name == FIELD.encode():
            file.file_object.seek(0)
            found.append((file.file_object.read(), (file.file_name or b"").decode("utf-8", "replace") or None))
        else:
            others.append((file.field_name or b"").decode("utf-8", "replace"))

    def on_field(field: Field) -> None:
        if field.field_name == FIELD.encode():  # sent without a file name
            found.append((field.value or b"", None))
        else:
            others.append((field.field_name or b"").decode("utf-8", "replace"))

    try:
        # Never to disk: the body is in memory already, and bounded.
        config = {"MAX_MEMORY_FILE_SIZE": len(body) + 1}
        parser = create_form_parser({"Content-Type": content_type.encode("latin-1")}, on_field, on_file, config)
        parser.write(body)
        parser.finalize()
    except FormParserError as error:
        raise RequestInvalid(f"the form cannot be read: {error}.", where="body") from error
    if len(found) != 1:
        has = f"{len(found)} fields `{FIELD}`" if found else f"no field `{FIELD}`"
        seen = f", only {', '.join(f'`{name[:40]}`' for name in others[:5])}" if others and not found else ""
        raise RequestInvalid(
            f"the form has {has}{seen}.",
            where="body",
            hint=f"Send one image as the field `{FIELD}`, and the form to its end.",
        )
    return found[0]


def _too_large(limits: Limits) -> ImageTooLarge:
    return ImageTooLarge(
        f"the body is larger than {limits.max_bytes:,} bytes.",
        where="body",
        hint="Send a smaller file, or start the service with a higher --max-bytes.",
    )
