"""The exceptions for errors that a user can correct, the hint at the end of a message, and how a full disk is known."""

import difflib
import errno
import re
from collections.abc import Iterable


class InputError(ValueError):
    """What the user asked for cannot be done; the message says what is wrong, where, and what to do instead.

    The command line prints the message as one line on standard error and ends with exit code 2.
    """


class UnknownFlag(InputError):
    """A flag that a command does not have. The message suggests the nearest one, spelled with dashes.

    Args:
        flag: The flag as it was given.
        known: The flags of the command, in either spelling, with or without the leading dashes.
        command: The command, whose help lists its flags.
    """

    def __init__(self, flag: str, known: Iterable[str], command: str) -> None:
        self.flag, self.known = flag, list(known)
        found = _closest(_dashed(flag), map(_dashed, self.known))
        hint = f"Did you mean --{found}?" if found else f"{command} --help lists the flags."
        super().__init__(f"There is no flag --{_dashed(flag)}. {hint}")


class DiskFull(InputError):
    """A file could not be written, because the disk is full.

    Args:
        path: What was being written.
        reason: The error of the library that wrote it.
        advice: What to do after making room; default: to run the same command again.
    """

    def __init__(self, path: object, reason: object, advice: str = "") -> None:
        self.path, self.reason = path, (str(reason).splitlines() or [""])[0]
        super().__init__(
            f"{path} could not be written, because the disk is full ({self.reason}). What was complete before is kept. "
            f"Make room, and then {advice or 'run the same command again'}."
        )


_FULL = re.compile(
    r"No space left on device|Disk quota exceeded|File too large|\(os error (27|28|122)\)"  # safetensors, tokenizers
    r"|^\d+ requested and \d+ written"  # numpy
    r"|faiss::.*write error"
    r"|PytorchStreamWriter failed|inline_container\.cc.* unexpected pos"  # torch, which does not say why
)


def disk_full(error: BaseException) -> bool:
    """Whether a library met a full disk, a quota or a limit on the size of a file, in whatever way it says so."""
    if isinstance(error, InputError):  # others are sentences already, also those that quote a library
        return isinstance(error, DiskFull)
    if isinstance(error, OSError) and error.errno is not None:
        return error.errno in (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
    return _FULL.search(str(error)) is not None


def nearest(name: str, known: Iterable[str]) -> str:
    """The end of an error message that asks whether the nearest known name was meant; empty if none is near."""
    found = _closest(name, known)
    return f" Did you mean '{found}'?" if found else ""


def _closest(name: str, known: Iterable[str]) -> str | None:
    lowered = {candidate.lower(): candidate for candidate in known}
    found = difflib.get_close_matches(name.lower(), lowered, n=1)
    return lowered[found[0]] if found else None


def _dashed(flag: str) -> str:
    return flag.lstrip("-").replace("_", "-")
