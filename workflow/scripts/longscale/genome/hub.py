"""Single files of the Hugging Face hub, every failure told in one sentence."""

import os
from pathlib import Path

from longscale.errors import LongscaleError


def hub_file(
    repo: str,
    filename: str,
    *,
    revision: str,
    repo_type: str = "model",
    optional: bool = False,
) -> Path | None:
    """Path of one file of a hub repository in the Hugging Face cache, fetched if it is not there.

    HF_ENDPOINT, HF_HUB_OFFLINE, HF_TOKEN and HF_HOME are respected. `revision`: branch, tag or
    commit. `optional`: None where the repository lacks the file (or the cache does and the hub
    gives no answer). Raises LongscaleError naming repository, file and reason.
    """
    # Imported where it is used: the tables of tasks are read by processes that download nothing.
    from huggingface_hub import errors, hf_hub_download

    what = f"{repo}: {filename} at revision {revision!r}"
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
    except errors.RevisionNotFoundError as error:
        raise LongscaleError(f"{what}: the {repo_type} has no such revision") from error
    except errors.RemoteEntryNotFoundError as error:
        if optional:
            return None
        raise LongscaleError(f"{what}: the {repo_type} has no such file") from error
    except errors.RepositoryNotFoundError as error:
        raise LongscaleError(
            f"{what}: no such {repo_type}, or it wants a token (HF_TOKEN) that was not given"
        ) from error
    except errors.LocalEntryNotFoundError as error:
        if optional:
            return None
        raise LongscaleError(
            f"{what}: the file is not in the Hugging Face cache and the hub gives no answer "
            f"({_first_line(error.__cause__ or error)}); "
            "connect once (HF_HUB_OFFLINE unset, HF_ENDPOINT a reachable hub) or fill HF_HOME"
        ) from error
    except (errors.HTTPError, errors.HFValidationError, OSError) as error:
        raise LongscaleError(f"{what}: the download failed: {_first_line(error)}") from error


def _first_line(error: BaseException) -> str:
    return next(iter(str(error).strip().splitlines()), type(error).__name__)
