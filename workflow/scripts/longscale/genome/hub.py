"""Single files of the Hugging Face hub: whole and verified, or one sentence.

The client of the hub resumes what is cut within a call and checks the length. It does not look at
what arrives (but for files in Xet storage); that is done here, against the hub's own checksum.
"""

import hashlib
import os
import re
import time
from contextlib import suppress
from http import HTTPStatus
from pathlib import Path

from longscale.errors import LongscaleError
from longscale.files import checksum

RETRIES = 3  # further attempts, beside those that the client makes within each
BACKOFF_S = 1.0  # wait before the first of them; doubles
RETRIED = {408, 425, 429, 500, 502, 503, 504}


def hub_file(
    repo: str,
    filename: str,
    *,
    revision: str,
    repo_type: str = "model",
    optional: bool = False,
) -> Path | None:
    """Path of one file of a hub repository in the Hugging Face cache, fetched if it is not there.

    HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME are respected, and so is
    HF_HUB_DOWNLOAD_TIMEOUT: the seconds of silence (10) after which a transfer counts as broken.
    `revision`: branch, tag or commit. `optional`: None where the repository lacks the file (or the
    cache does and no hub can be reached).

    The file, also one that was in the cache before, is held against the checksum in its ETag:
    SHA-256 for a large file (LFS, Xet), the Git object name for a small one (or plain SHA-1, which
    some mirrors have). A damaged one is removed and fetched again; so is what a broken connection
    or a server's error (5xx) left unfinished, up to RETRIES times. Another kind of ETag, and a
    cache without symbolic links, leave the length as the only check.

    Raises LongscaleError naming repository, file and reason.
    """
    what = f"{repo}: {filename} at revision {revision!r}"
    reason = ""
    for failures in range(RETRIES + 1):
        if failures:
            time.sleep(BACKOFF_S * 2 ** (failures - 1))
        try:
            path = _download(repo, filename, revision, repo_type, what, optional=optional)
            if path is None or not (reason := _damage(path)):
                return path
            _forget(path)
            optional = False  # it was there
        except _RetryError as error:
            reason = str(error)
        except LongscaleError as error:
            if not reason:
                raise
            raise LongscaleError(f"{error}; the attempt before that: {reason}") from error
    raise LongscaleError(f"{what}: the download failed, {RETRIES + 1} attempts: {reason}")


class _RetryError(Exception):
    """A failure that another attempt may mend; its text is the reason."""


def _download(
    repo: str, filename: str, revision: str, repo_type: str, what: str, *, optional: bool
) -> Path | None:
    """One call of the hub's client."""
    # Imported where it is used: the tables of tasks are read by processes that download nothing.
    from huggingface_hub import errors, hf_hub_download

    try:
        return Path(
            hf_hub_download(
                repo,
                filename,
                repo_type=repo_type,
                revision=revision,
                endpoint=os.environ.get("HF_ENDPOINT"),
            )
        )
    except (errors.HTTPError, OSError, ValueError, RuntimeError) as error:
        missing = isinstance(error, errors.EntryNotFoundError)
        # A hub that answers with an error (5xx) has not said that it lacks the file.
        if optional and missing and not isinstance(error.__cause__, errors.HfHubHTTPError):
            return None
        if _may_pass(error):
            raise _RetryError(_reason(error)) from error
        raise LongscaleError(f"{what}: {_refusal(error, repo_type)}") from error


def _may_pass(error: Exception) -> bool:
    """Whether another attempt may mend it: a server's trouble, a broken or incomplete transfer."""
    from huggingface_hub import errors

    if isinstance(error, errors.HfHubHTTPError):
        return error.response.status_code in RETRIED
    if isinstance(error, errors.LocalEntryNotFoundError):
        return False  # the client has tried for half a minute
    # An OSError with a number is our own disk's.
    return isinstance(error, errors.HTTPError | OSError) and not getattr(error, "errno", None)


def _refusal(error: Exception, repo_type: str) -> str:
    """What a final error of the client means."""
    from huggingface_hub import errors

    match error:
        case errors.RevisionNotFoundError():
            return f"the {repo_type} has no such revision"
        case errors.RemoteEntryNotFoundError():
            return f"the {repo_type} has no such file"
        case errors.LocalEntryNotFoundError():
            return (
                "the file is not in the Hugging Face cache and the hub gives no answer "
                f"({_reason(error.__cause__ or error)}); "
                "connect once (HF_HUB_OFFLINE unset, HF_ENDPOINT a reachable hub) or fill HF_HOME"
            )
        case errors.HfHubHTTPError(response=response) if (
            isinstance(error, errors.RepositoryNotFoundError)
            or response.status_code == HTTPStatus.UNAUTHORIZED
        ):
            return f"no such {repo_type}, or it wants a token (HF_TOKEN) that was not given"
        case RuntimeError():  # of hf_xet
            return (
                f"the download failed: {_reason(error)}; HF_HUB_DISABLE_XET=1 does without Xet "
                "storage"
            )
    return f"the download failed: {_reason(error)}"


def _damage(path: Path) -> str:
    """In what a file of the cache differs from the checksum it is named by; "" if in nothing."""
    # One link only: what lies in the store for all repositories has another name.
    blob = path.readlink() if path.is_symlink() else path
    name = blob.name if blob.parent.name == "blobs" else ""
    if re.fullmatch("[0-9a-f]{64}", name):
        kind, found = "SHA-256", checksum(path)
    elif re.fullmatch("[0-9a-f]{40}", name):
        kind, found = "Git object name", _git_object_name(path)
    else:
        return ""
    if found == name or (kind != "SHA-256" and checksum(path, "sha1") == name):
        return ""
    with path.open("rb") as handle:
        head = handle.read(64).lstrip().lower()
    page = " (an HTML page)" if head.startswith((b"<!doctype html", b"<html")) else ""
    return f"the {kind} of what arrived{page} is {found}, expected {name}"


def _git_object_name(path: Path) -> str:
    """What `git hash-object` says: SHA-1 of `blob`, the length and the content."""
    digest = hashlib.sha1(b"blob %d\0" % path.stat().st_size, usedforsecurity=False)
    with path.open("rb") as handle:
        while chunk := handle.read(1 << 20):
            digest.update(chunk)
    return digest.hexdigest()


def _forget(path: Path) -> None:
    """Take a damaged file out of the cache, so that nobody takes it for the right one."""
    with suppress(OSError):  # where the cache is read-only it stays, and is refused every time
        (path.parent / path.readlink()).unlink()
        path.unlink()


def _reason(error: BaseException) -> str:
    """The first line of what the client says."""
    line = next(iter(str(error).strip().splitlines()), type(error).__name__).rstrip(".")
    if "Timeout" in type(error).__name__:
        return f"{line}, the hub was silent for longer than HF_HUB_DOWNLOAD_TIMEOUT allows"
    return line
