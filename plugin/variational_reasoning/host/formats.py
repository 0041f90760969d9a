"""The three data formats that `dataset_info.json` may name in addition to the host's.

    weighted_sft   prompt, response [, weight, ids]            the text is taken as it is
    reasoning      question, trace, solution [, weight, ids]   rendered as the YAML's `prompt_kind`
    abstract       question, trace, solution [, chain, weight, ids]
                                                               the same; the trace is symbols, and
                                                               chain the verbal one

`"columns": {"prompt": "name in the file"}` maps names that differ. Messages count rows from 1.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from variational_reasoning.files import read_json_object
from variational_reasoning.method.abstract import BEGIN, END, SYMBOL_OPENING, has_only_symbols
from variational_reasoning.method.families import REASONER
from variational_reasoning.method.prompts import PromptParts, Renderer

FORMATS = {
    "weighted_sft": ("prompt", "response"),
    "reasoning": ("question", "trace", "solution"),
    "abstract": ("question", "trace", "solution"),
}
RENDERED = ("reasoning", "abstract")
"""Formats whose rows are rendered as a prompt kind."""

CHAIN = "chain"
ID_COLUMNS = ("question_id", "trace_id", "answer_id")
OPTIONAL_COLUMNS = ("weight", *ID_COLUMNS)

CUT_CHAIN = "cut_chain"
OVERLONG_POLICIES = ("drop", "truncate", "error", CUT_CHAIN)
"""What happens to a row longer than cutoff_len: it is left out, loses the end of its response, ends
the training, or loses the end of its verbal chain (abstract.py), never of symbols or answer."""

FILE_TYPES = {
    ".arrow": "arrow",
    ".csv": "csv",
    ".json": "json",
    ".jsonl": "json",
    ".parquet": "parquet",
    ".txt": "text",
}
"""File name ending to the loader of `datasets` that the host chooses for it."""

_ELSEWHERE = ("hf_hub_url", "ms_hub_url", "om_hub_url", "script_url", "cloud_file_name")
"""Keys of an entry that the host prefers to `file_name`."""

_REMOTE = "REMOTE:"


def read_dataset_info(dataset_dir: Any) -> tuple[dict[str, Any], str]:
    """(contents, path) of the dataset_info.json that a run uses.

    Args:
        dataset_dir: a folder, `REMOTE:owner/name` for a data set repository on the hub, `ONLINE`,
            or the contents themselves.

    Returns: no contents for `ONLINE`, and for a file that does not exist or cannot be downloaded.
    Raises: ValueError for a file that is not a JSON object.
    """
    if isinstance(dataset_dir, dict):
        return dataset_dir, ""
    folder = str(dataset_dir)
    if folder.startswith(_REMOTE):
        path = _download_dataset_info(folder.removeprefix(_REMOTE))
    else:
        path = Path(folder) / "dataset_info.json"
    if path is None:
        return {}, f"dataset_info.json of {folder}"
    if not path.is_file():
        return {}, str(path)
    remedy = "correct it, or set dataset_dir to another folder"
    return read_json_object(path, remedy), str(path)


def _download_dataset_info(repository: str) -> Path | None:
    """Fetch the file with the host's own function, which reads the hub's cache first."""
    from llamafactory.data import parser as host

    try:
        return Path(host.hf_hub_download(repository, "dataset_info.json", repo_type="dataset"))
    except (OSError, ValueError):  # not on the hub, not reachable, or not a repository's name
        return None


def map_columns(
    source: str, formatting: str, mapping: dict[str, str], present: Sequence[str]
) -> tuple[dict[str, str], list[str]]:
    """The column of the file for each role.

    With the mapping {"prompt": "query"}, a file with the columns query, response and weight gives
    {"prompt": "query", "response": "response", "weight": "weight"}.

    Args:
        source: the data set's name, for messages. mapping: `columns` of its entry.
        present: columns of the file.

    Returns: ({role: column}, faults). A role that is optional and absent from the file is left out.
    """
    needed = FORMATS[formatting]
    roles = (*needed, *OPTIONAL_COLUMNS)
    if formatting == "abstract":
        roles = (*roles, CHAIN)
    faults = []
    for role in mapping:
        if role not in roles:
            faults.append(
                f"dataset {source!r}: `columns` maps {role!r}, which {formatting} does not have; "
                f"it has {', '.join(roles)}"
            )
    columns = {}
    for role in roles:
        column = mapping.get(role, role)
        if column in present:
            columns[role] = column
        elif role in needed or role in mapping:
            faults.append(
                f"dataset {source!r}: column {column!r} ({role}) is missing; the file has "
                f'{", ".join(present)}. Map the names with "columns" in dataset_info.json'
            )
    return columns, faults


@dataclass
class RowRenderer:
    """Turns rows of one data set into texts. Raises on the first row that does not fit.

    numbers: for a data set that is a sample of its file: row of the file (from 0) by row here.
    part: the part of the file that row numbers count in, such as " of a shard". Empty for the whole
        file.
    """

    source: str
    formatting: str
    columns: dict[str, str]
    prompt_kind: str | None
    renderer: Renderer
    numbers: Sequence[int] | None = None
    part: str = ""

    def __call__(self, example: dict[str, Any], index: int) -> dict[str, Any]:
        """Render one row.

        Returns: prompt (the list of its texts that become ids apart: PromptParts, or the whole),
            response, weight (1.0 where the data set has no such column), ids as text or None.
        Raises: ValueError for a wrong type, an empty text, a bad weight, or a prompt of another
            kind than the YAML says. It names the data set, the row and the column.
        """
        texts = {role: self._text(example, index, role) for role in FORMATS[self.formatting]}
        if self.formatting in RENDERED:
            parts, response = self._rendered(example, index, texts)
            prompt = list(parts) if self.renderer.family.is_abstract else [parts.x]
        else:
            self._check_kind(texts["prompt"], index)
            prompt, response = [texts["prompt"]], texts["response"]
            if self.prompt_kind is not None and self.renderer.family.is_abstract:
                prompt = list(self.renderer.cut_prompt(self.prompt_kind, texts["prompt"]))
        ids = {role: self._id(example, role) for role in ID_COLUMNS}
        weight = self._weight(example, index)
        return {"prompt": prompt, "response": response, "weight": weight, **ids}

    def _rendered(
        self, example: dict[str, Any], index: int, texts: dict[str, str]
    ) -> tuple[PromptParts, str]:
        kind = self.prompt_kind
        if kind is None:
            raise ValueError(f"`{self.formatting}` rows need a prompt_kind")  # see args.check
        chain = None
        if self.renderer.family.hint == "trace" and kind != REASONER:
            if CHAIN not in self.columns:
                raise ValueError(
                    f"data set {self.source!r}: prompt_kind {kind!r} shows the verbal chain, but "
                    f"the file has no column {CHAIN!r}; use the formatting `abstract` and a file "
                    "that has it"
                )
            chain = self._text(example, index, CHAIN)
        if self.renderer.family.is_abstract:
            self._check_abstract(index, texts, chain)
        return self.renderer.render_parts(kind, **texts, chain=chain)

    def _check_abstract(self, index: int, texts: dict[str, str], chain: str | None) -> None:
        """A trace of anything but symbols, and a text that holds a symbol or a delimiter."""
        if not has_only_symbols(texts["trace"]):
            raise ValueError(
                f"{self._where(index, 'trace')}: needs symbols such as <TOKEN_A> and nothing else, "
                f"holds {texts['trace']!r:.60}"
            )
        others = {role: texts[role] for role in ("question", "solution")}
        if chain is not None:
            others[CHAIN] = chain
        for role, text in others.items():
            found = [tag for tag in (BEGIN, END, SYMBOL_OPENING) if tag in text]
            if found:
                raise ValueError(
                    f"{self._where(index, role)}: holds {found[0]!r}, which only a trace may hold"
                )

    def place(self, index: int) -> str:
        """`row N` for a message: N is the row's number in its file, from 1."""
        number = index if self.numbers is None else self.numbers[index]
        return f"row {number + 1}{self.part}"

    def _where(self, index: int, role: str) -> str:
        column = self.columns.get(role, role)
        return f"data set {self.source!r}, {self.place(index)}, column {column!r}"

    def _check_kind(self, prompt: str, index: int) -> None:
        found = self.renderer.detect_kind(prompt)
        wanted = self.prompt_kind
        if wanted is not None and self.renderer.answers(wanted) and wanted != REASONER:
            wanted = self.renderer.family.posteriors[-1]  # the same prompt
        if wanted is None or found == wanted:
            return
        where = self._where(index, "prompt")
        kind = found or "no kind that we know"
        raise ValueError(
            f"{where}: is laid out for {kind}, but the YAML says "
            f"`prompt_kind: {self.prompt_kind}`; choose the data set or the key that fits"
        )

    def _text(self, example: dict[str, Any], index: int, role: str) -> str:
        value = example[self.columns[role]]
        if not isinstance(value, str):
            kind = type(value).__name__
            raise ValueError(f"{self._where(index, role)}: needs text, holds {kind} {value!r:.60}")
        may_be_empty = role == "trace" and self.formatting == "abstract"
        if not value.strip() and not may_be_empty:
            raise ValueError(f"{self._where(index, role)}: is empty")
        return value

    def _weight(self, example: dict[str, Any], index: int) -> float:
        if "weight" not in self.columns:
            return 1.0
        value = example[self.columns["weight"]]
        where = self._where(index, "weight")
        if isinstance(value, bool) or not isinstance(value, int | float):
            raise ValueError(f"{where}: needs a number, holds {type(value).__name__} {value!r:.60}")
        if not (value >= 0 and math.isfinite(value)):
            raise ValueError(f"{where}: {value} is not a finite number of zero or more")
        return float(value)

    def _id(self, example: dict[str, Any], role: str) -> str | None:
        if role not in self.columns:
            return None
        value = example[self.columns[role]]
        return None if value is None else str(value)


def check_source(
    source: str,
    entry: dict[str, Any],
    dataset_dir: Any,
    prompt_kind: str | None,
    renderer: Renderer | None,
) -> list[str]:
    """Faults of a local data set that its first row already shows.

    A data set of the hub is checked when it is loaded.
    """
    if "file_name" not in entry or any(entry.get(key) for key in _ELSEWHERE):
        return []
    path = Path(entry["file_name"])
    if not isinstance(dataset_dir, dict):
        path = Path(str(dataset_dir)) / path
    elif not path.exists():
        return []
    if not path.exists():
        return [
            f"dataset {source!r}: the file {str(path)!r} does not exist; "
            "run the stage that writes it first"
        ]
    try:
        first = _first_row(path)
    except (ValueError, OSError) as error:
        return [f"dataset {source!r}: {str(path)!r} cannot be read ({error})"]
    formatting = entry["formatting"]
    columns, faults = map_columns(source, formatting, entry.get("columns", {}), list(first))
    needs_kind = formatting in RENDERED
    if faults or renderer is None or (needs_kind and prompt_kind is None):
        return faults
    try:
        RowRenderer(source, formatting, columns, prompt_kind, renderer)(first, 0)
    except ValueError as error:
        faults.append(str(error))
    return faults


def _first_row(path: Path) -> dict[str, Any]:
    """The first row of a file, or of a folder's files, read by the same loader as the host's.

    Raises: ValueError for what the host cannot read, and where there is no row; OSError.
    """
    files = [str(path)]
    if path.is_dir():
        files = [str(file) for file in path.iterdir()]
    if not files:
        raise ValueError("the folder holds no file")
    endings = {Path(file).suffix for file in files}
    loaders = {FILE_TYPES.get(ending) for ending in endings}
    loader = loaders.pop()
    if loaders or loader is None:
        found = ", ".join(sorted(ending or "no ending" for ending in endings))
        raise ValueError(
            f"file types {found}: all files of a data set must have one type, which is one of "
            f"{', '.join(FILE_TYPES)}"
        )
    import datasets

    files = [file for file in files if Path(file).stat().st_size]
    if not files:
        raise ValueError("it is empty")
    try:
        stream = datasets.load_dataset(loader, data_files=files, split="train", streaming=True)
        first = next(iter(stream), None)
    except datasets.exceptions.DatasetsError as error:
        raise ValueError(str(error.__cause__ or error)) from error
    if first is None:
        raise ValueError("it has no rows")
    return first
