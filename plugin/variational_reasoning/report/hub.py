"""Push a folder with a card to the hub: only on request, and private by default.

A repository that exists keeps its visibility, so pushing `private` into a public one would publish.
If the visibility of an existing repository differs from the requested one, the push is refused.
"""

from fnmatch import fnmatch
from pathlib import Path
from typing import NamedTuple

from variational_reasoning.model_record import RECORD_NAME, masked, read_record
from variational_reasoning.report.cards import CARD, UNKNOWN

LEFT_OUT = (
    "checkpoint-*/*",
    "global_step*/*",
    "training_args.bin",
    "*.tmp",
    ".*",
    "*/.*",
    "runs/*",
)
"""Files of a training that nobody needs to run or check the result. training_args.bin is a pickle.
"""


class Push(NamedTuple):
    """What would be uploaded where."""

    folder: Path
    repo: str
    kind: str
    private: bool
    files: list[str]


def plan_push(folder: Path, repo: str, kind: str | None = None, private: bool = True) -> Push:
    """Check a folder and list its files, without any network.

    Args:
        repo: ACCOUNT/NAME.
        kind: model or dataset; found from the folder by default.

    Raises: ValueError for a folder without our card or of no known kind, a repository name that the
        hub does not accept, a public push under an unknown license, and a record that contains a
        secret.
    """
    from huggingface_hub import RepoCard
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id

    if not folder.is_dir():
        raise ValueError(f"there is no folder {folder}")
    found = None
    if (folder / RECORD_NAME).is_file():
        found = "model"
    elif any(folder.glob("*.parquet")):
        found = "dataset"
    kind = kind or found
    if kind not in ("model", "dataset"):
        raise ValueError(
            f"kind is {kind!r}, and {folder} shows neither a model nor a data set; say kind=model "
            "or kind=dataset"
        )
    if found is not None and kind != found:
        raise ValueError(f"kind={kind}, but {folder} holds a {found}")
    try:
        validate_repo_id(repo)
    except HFValidationError as error:
        raise ValueError(f"repo={repo!r}: {error}") from error
    if "/" not in repo:
        raise ValueError(f"repo={repo!r} names no account; say repo=ACCOUNT/NAME")
    card = folder / CARD
    if not card.is_file():
        raise ValueError(f"{folder} has no {CARD}; run scripts/write_cards.py first")
    data = RepoCard.load(card).data.to_dict()
    if "variational-reasoning" not in (data.get("tags") or []):
        raise ValueError(
            f"{card} is not a card of ours; run scripts/write_cards.py first, and train no more "
            "after it"
        )
    if not private and data.get("license", UNKNOWN) == UNKNOWN:
        raise ValueError(
            f"{card}: the license is unknown, so this is only pushed privately; run "
            "scripts/write_cards.py with cards.data_license=... and cards.model_license=..."
        )
    record = read_record(folder)
    if record != masked(record):
        raise ValueError(
            f"{folder / RECORD_NAME} holds a token or another secret in clear, as early versions "
            "wrote it; remove its value from the file, and revoke it if others could read the file"
        )
    names = sorted(str(path.relative_to(folder)) for path in folder.rglob("*") if path.is_file())
    files = [name for name in names if not _is_left_out(name)]
    return Push(folder, repo, kind, private, files)


def _is_left_out(name: str) -> bool:
    return any(fnmatch(name, pattern) for pattern in LEFT_OUT)


def push(plan: Push) -> str:
    """Create the repository if needed, upload the planned files in one commit, return its address.

    Raises: ValueError for an existing repository of another visibility. The hub's own errors are
        OSError.
    """
    from huggingface_hub import HfApi
    from huggingface_hub.errors import RepositoryNotFoundError

    api = HfApi()
    try:
        is_private = bool(api.repo_info(plan.repo, repo_type=plan.kind).private)
    except RepositoryNotFoundError:
        api.create_repo(plan.repo, repo_type=plan.kind, private=plan.private)
    else:
        if is_private != plan.private:
            there = "private" if is_private else "public"
            asked = "private" if plan.private else "public"
            raise ValueError(
                f"{plan.repo} is there already and is {there}, but {asked} is asked for; change it "
                "on the hub first"
            )
    api.upload_folder(
        repo_id=plan.repo,
        repo_type=plan.kind,
        folder_path=plan.folder,
        allow_patterns=plan.files,
        commit_message="Upload by variational_reasoning",
    )
    return f"{api.endpoint}/{'datasets/' if plan.kind == 'dataset' else ''}{plan.repo}"
