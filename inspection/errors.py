"""Everything that can go wrong in a way that a user can mend.

Each error has a short code that never changes, says what is wrong and where, and what to do about it. The command
line prints it without a traceback and exits with `exit_code`; HTTP answers with `status` and RFC 9457 problem+json.
"""

from __future__ import annotations

from typing import ClassVar


class InspectionError(Exception):
    """Base of every error that is meant for a user.

    Args:
        what: one sentence that says what is wrong.
        where: the file, line, key or field it is about.
        hint: what to do about it.
    """

    code: ClassVar[str] = "error"
    exit_code: ClassVar[int] = 1
    status: ClassVar[int] = 500

    def __init__(self, what: str, *, where: str | None = None, hint: str | None = None) -> None:
        super().__init__(what, where, hint)
        self.what = what
        self.where = where
        self.hint = hint

    def __str__(self) -> str:
        """One line, for logs and for the error column of a batch."""
        where = f"{self.where}: " if self.where else ""
        hint = f" {self.hint}" if self.hint else ""
        return f"{where}{self.what}{hint}"


class ConfigInvalid(InspectionError):
    """A configuration, an option or a combination of options that cannot be carried out."""

    code = "config-invalid"
    exit_code = 2
    status = 400


class ImageUnreadable(InspectionError):
    """The bytes are no image, a damaged image, or a kind of image that no door accepts."""

    code = "image-unreadable"
    exit_code = 3
    status = 422


class ImageTooLarge(ImageUnreadable):
    """The image has more bytes or pixels than the stated limit. Found before anything is decoded."""

    code = "image-too-large"
    status = 413


class InputMismatch(InspectionError):
    """A sound image that is not what the model was made for: channels, bit depth, size."""

    code = "input-mismatch"
    exit_code = 3
    status = 422


class ModelInvalid(InspectionError):
    """Not a model file of this project, or a damaged one."""

    code = "model-invalid"
    exit_code = 4
    status = 503


class ProviderUnavailable(InspectionError):
    """The execution provider (device) that was asked for is not granted."""

    code = "provider-unavailable"
    exit_code = 4
    status = 503


class CertificateMismatch(InspectionError):
    """The model does not give, on this machine, the scores that its certificate states."""

    code = "certificate-mismatch"
    exit_code = 4
    status = 503


class InferenceFailed(InspectionError):
    """The network could not be run on an input that it should take: out of memory, device lost."""

    code = "inference-failed"
    exit_code = 4
    status = 500


class DataInvalid(InspectionError):
    """A dataset, an annotation or a run folder that cannot be used as it is."""

    code = "data-invalid"
    exit_code = 5
    status = 422


class OutputUnwritable(InspectionError):
    """A result cannot be written: read-only folder, full disk, a file that must not be overwritten."""

    code = "output-unwritable"
    exit_code = 6
    status = 507


class MissingExtra(InspectionError):
    """The command needs packages that the plain install leaves out."""

    code = "missing-extra"
    exit_code = 7
    status = 501


class PromiseBroken(InspectionError):
    """Something was made, and refused because it does not keep what it promises (parity, int8 against float)."""

    code = "promise-broken"
    exit_code = 8
    status = 500
