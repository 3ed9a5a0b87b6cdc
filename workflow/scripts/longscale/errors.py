"""The one exception that a user is meant to see, and what to say of a disk that gives way."""

import errno
from collections.abc import Iterator

_LONGEST = 4000  # characters of a sentence


class LongscaleError(Exception):
    """Bad input or a failed step, told in one sentence.

    The sentence names the file, line or key, says what is wrong and what would be right.
    Scripts print it without a traceback and exit with 1. Names from a file stand in it: line
    breaks and other control characters are shown as their escapes, so that it stays one line and
    says nothing to a terminal, and of an endless one only both ends are kept.
    """

    def __init__(self, sentence: str) -> None:
        shown = "".join(
            c if c.isprintable() else c.encode("unicode_escape").decode() for c in sentence
        )
        if len(shown) > _LONGEST:
            shown = f"{shown[: _LONGEST // 2]} ... {shown[-_LONGEST // 2 :]}"
        super().__init__(shown)


_STORAGE = {errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EACCES, errno.EPERM, errno.EIO}

# Libraries that write files by themselves keep the system's words, or (torch) not even those.
_STORAGE_WORDS = (
    "No space left on device",
    "Disk quota exceeded",
    "Read-only file system",
    "PytorchStreamWriter failed writing",
    "inline_container.cc",
)


def storage_sentence(error: BaseException) -> str | None:
    """What to tell a user whose disk is full or closed to us; None where it is something else.

    Looked for in `error` and in what caused it.
    """
    for cause in _causes(error):
        if isinstance(cause, OSError) and cause.errno in _STORAGE:
            what = f"{cause.filename}: {cause.strerror}" if cause.filename else cause.strerror
        elif any(words in str(cause) for words in _STORAGE_WORDS):
            what = " ".join(str(cause).split())
        else:
            continue
        return (
            f"a file cannot be stored or read ({what}); make room, or allow it, and give the same"
            " command again: what is finished is kept"
        )
    return None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
