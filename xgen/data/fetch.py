"""Data sets, models and tokenizers are brought to the shared file system by a node that has a network, once.

What came is written down last, in xgen-fetch.json: a folder with that file is whole.
"""

from __future__ import annotations

import fnmatch
import hashlib
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Literal

from pydantic import BaseModel, ConfigDict

from xgen.data.errors import InterruptedBuildError, StoreError
from xgen.data.store import FileMeta, file_meta

FETCH_FILE = "xgen-fetch.json"
Kind = Literal["dataset", "model", "tokenizer"]
_TOKENIZER = ("tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab*", "merges.txt", "chat_template*")


class Fetched(BaseModel):
    """xgen-fetch.json. `revision` is a commit of the hub, or the ETag of a URL."""

    model_config = ConfigDict(frozen=True)

    kind: Kind
    name: str
    revision: str
    files: dict[str, FileMeta]


class _Listed(BaseModel):
    """A file as the hub lists it: `sha256` for large ones, else git's `blob`."""

    size: int
    blob: str
    sha256: str | None


def list_repo(kind: Kind, name: str, revision: str | None, include: Sequence[str] = ()) -> tuple[str, dict[str, int]]:
    """The commit that `revision` (None: the newest) is now, and the sizes of the files that would be fetched.

    Raises StoreError for what the hub does not have or does not give, InterruptedBuildError when it cannot be reached.
    """
    commit, listed = _list(kind, name, revision, include)
    return commit, {path: file.size for path, file in listed.items()}


def fetch_repo(
    kind: Kind,
    name: str,
    to: Path,
    revision: str | None = None,
    include: Sequence[str] = (),
    bars: bool = False,
) -> Fetched:
    """Download a repository of the hub into `to` and check every file; called again, it goes on where it was.

    `bars`: the hub's own, on stderr.

    Raises StoreError and InterruptedBuildError as `list_repo` does, and for a file that came with other content.
    """
    import huggingface_hub
    from huggingface_hub.utils.tqdm import disable_progress_bars

    commit, listed = _list(kind, name, revision, include)
    earlier = read_fetched(to)
    if earlier and (earlier.name, earlier.kind, earlier.revision) == (name, kind, commit):
        if earlier.files.keys() == listed.keys() and not _changed(to, earlier):
            return earlier
    elif earlier and earlier.name != name:
        raise StoreError(to, f"holds {earlier.kind} {earlier.name}", "name another --to")
    (to / FETCH_FILE).unlink(missing_ok=True)  # from here on the folder is not whole
    if not bars:
        disable_progress_bars()
    with _said(name):
        huggingface_hub.snapshot_download(
            name,
            repo_type=_repo_type(kind),
            revision=commit,
            local_dir=to,
            allow_patterns=sorted(map(_literal, listed)),
        )
    files = {path: _check(to / path, expected) for path, expected in sorted(listed.items())}
    fetched = Fetched(kind=kind, name=name, revision=commit, files=files)
    write_fetched(to, fetched)
    return fetched


def read_fetched(folder: Path) -> Fetched | None:
    """What was fetched into `folder`; None when that was not finished."""
    try:
        return Fetched.model_validate_json((folder / FETCH_FILE).read_bytes())
    except (OSError, ValueError):
        return None


def write_fetched(folder: Path, fetched: Fetched) -> None:
    unfinished = folder / f".{FETCH_FILE}.tmp"
    unfinished.write_text(fetched.model_dump_json(indent=1) + "\n", encoding="utf-8")
    unfinished.rename(folder / FETCH_FILE)


def _changed(folder: Path, fetched: Fetched) -> bool:
    paths = {folder / name: facts.bytes for name, facts in fetched.files.items()}
    return any(not path.is_file() or path.stat().st_size != size for path, size in paths.items())


def _list(kind: Kind, name: str, revision: str | None, include: Sequence[str]) -> tuple[str, dict[str, _Listed]]:
    import huggingface_hub
    from huggingface_hub.hf_api import RepoFile

    api = huggingface_hub.HfApi()
    with _said(name):
        commit = api.repo_info(name, repo_type=_repo_type(kind), revision=revision).sha
        assert commit is not None
        tree = api.list_repo_tree(name, repo_type=_repo_type(kind), revision=commit, recursive=True)
        files = {entry.path: entry for entry in tree if isinstance(entry, RepoFile)}
    wanted = tuple(include) or (_TOKENIZER if kind == "tokenizer" else ("*",))
    listed = {
        path: _Listed(size=file.size, blob=file.blob_id, sha256=file.lfs.sha256 if file.lfs else None)
        for path, file in files.items()
        if any(fnmatch.fnmatch(path, pattern) for pattern in wanted)
    }
    if not listed:
        known = ", ".join(sorted(files)[:8]) or "nothing"
        raise StoreError(f"{kind} {name}", f"has no file like {', '.join(wanted)}; it has {known}", "write --include")
    return commit, listed


def _repo_type(kind: Kind) -> str:
    return "dataset" if kind == "dataset" else "model"


def _literal(path: str) -> str:
    """A pattern that matches this path alone."""
    return re.sub(r"([\[?*])", r"[\1]", path)


def _check(file: Path, expected: _Listed) -> FileMeta:
    found = file_meta(file)
    ok = found.bytes == expected.size
    if ok and expected.sha256:
        ok = found.sha256 == expected.sha256
    elif ok:
        ok = _git_blob(file, found.bytes) == expected.blob
    if not ok:
        file.unlink()
        raise InterruptedBuildError(file, "came with other content than the hub lists; it was removed", "fetch again")
    return found


def _git_blob(file: Path, size: int) -> str:
    digest = hashlib.sha1(f"blob {size}\0".encode(), usedforsecurity=False)
    with file.open("rb") as data:
        while block := data.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()


@contextmanager
def _said(name: str) -> Iterator[None]:
    """What the hub's library raises, in one line that has no secret in it."""
    import httpx
    from huggingface_hub import errors

    again = "fetch again: it goes on where it was"
    try:
        yield
    except errors.GatedRepoError:
        fix = "ask for access on its page, then set HF_TOKEN"
        raise StoreError(name, "is given only to those who were let in", fix) from None
    except errors.RevisionNotFoundError:
        raise StoreError(name, "has no such revision", "write a branch, a tag or a commit with --revision") from None
    except (errors.RepositoryNotFoundError, errors.HFValidationError):
        fix = "check KIND and NAME; for a private one set HF_TOKEN"
        raise StoreError(name, "is not on the hub, or not for you", fix) from None
    except errors.OfflineModeIsEnabled:
        raise StoreError(name, "HF_HUB_OFFLINE is set", "unset it, on a node with a network") from None
    except (errors.HfHubHTTPError, errors.LocalEntryNotFoundError, httpx.HTTPError) as error:
        raise InterruptedBuildError(name, f"the hub does not answer: {redact(error)}", again) from None


def redact(said: Any) -> str:
    """One short line without credentials and tokens."""
    text = re.sub(r"//[^/@\s]+@", "//…@", " ".join(str(said).split()))
    text = re.sub(r"\?[^\s'\"]+", "?…", text)
    return re.sub(r"hf_[A-Za-z0-9]{8,}", "hf_…", text)[:300]
