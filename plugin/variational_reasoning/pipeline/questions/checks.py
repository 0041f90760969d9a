"""Which check each question gets: its own, tests of its source, its gold, or the box of its
solution (stage 0).

The column `source` names a data set and a record, such as apps/12. data.tests says where the
records of a source are, whose tests then check programs. data.check_kinds says how the answers of
another source are compared. Published data sets have records whose tests cannot be used. Their
questions have no check, and they are counted by name, because the user could neither repair such a
record nor leave it out otherwise.
"""

import json
from collections.abc import Mapping
from typing import Any

from variational_reasoning.pipeline.config import DataConfig
from variational_reasoning.pipeline.questions.sources import read_source
from variational_reasoning.verify.checks import check_faults
from variational_reasoning.verify.mathematics.boxes import last_boxed

CHECK_KINDS = ("math", "exact", "none")


class QuestionChecks:
    """Makes the checks of rows.

    digests: name to sha256 of the files that were read. unusable: source to reason, of tests that
    cannot be used.
    """

    def __init__(self, data: DataConfig) -> None:
        """Read the files of data.tests. Raises: ValueError and FileNotFoundError for files that do
        not fit.
        """
        self.data = data
        self.digests: dict[str, str] = {}
        self.unusable: dict[str, str] = {}
        self._records: dict[str, list[dict[str, Any]]] = {}
        self._columns = {tests.source: tests.column for tests in data.tests}
        self._seen: set[str] = set()
        for tests in data.tests:
            source = tests.source
            records, digest = read_source(tests.file, tests.split, data.allow_hub)
            if not any(tests.column in record for record in records):
                raise ValueError(
                    f"{tests.file} (data.tests) lacks the column {tests.column!r}; it has "
                    f"{', '.join(records[0])}"
                )
            self._records[source] = records
            self.digests[f"tests.{source}"] = digest
            print(f"reads {len(records)} records with tests of {source} from {tests.file}")

    def of(self, row: Mapping[str, Any], solution: str) -> tuple[dict[str, Any], str | None]:
        """(check, fault) of a row with the columns check, gold and source; the fault is None for a
        sound check.
        """
        # apps/12 is record 12 of apps; a source without a slash has no record
        source, _, record = str(row["source"] or "").partition("/")
        self._seen.add(source)
        if row["check"] is not None:
            return _own_check(row["check"])
        if source in self._records:
            return self._program(source, record)
        kind = self.data.check_kinds.get(source, self.data.check_kind)
        if kind == "none":
            return {"kind": "none"}, None
        gold = row["gold"]
        if gold is None:
            gold = last_boxed(solution) if kind == "math" else solution.strip() or None
        if gold is None:
            return {"kind": "none"}, None
        if not isinstance(gold, list):
            gold = str(gold)
        check = {"kind": kind, "gold": gold}
        return check, _fault(check)

    def refuse_unused(self) -> None:
        """Raise ValueError when data.check_kinds or data.tests names a source that no row has."""
        named = self.data.check_kinds.keys() | self._records.keys()
        unused = sorted(named - self._seen)
        if unused:
            there = sorted(self._seen)[:10]
            raise ValueError(
                "data.check_kinds, data.tests: no row's source begins with "
                f"{', '.join(map(repr, unused))}; the sources are {', '.join(map(repr, there))}"
            )

    def _program(self, source: str, record: str) -> tuple[dict[str, Any], str | None]:
        """The check of a program by a record of data.tests; of kind none, and noted in `unusable`,
        where the record's tests cannot be used.
        """
        records = self._records[source]
        name = f"{source}/{record}"
        if not record.isdecimal() or int(record) >= len(records):
            last = f"{source}/{len(records) - 1}"
            return {}, (
                f"source {name!r} names no record of data.tests; there are {source}/0 to {last}"
            )
        tests = records[int(record)][self._columns[source]]
        check = {"kind": "program", "tests": tests}
        fault = _fault(check)
        if fault is not None:
            self.unusable[name] = fault
            return {"kind": "none"}, None
        return check, None


def _fault(check: Any) -> str | None:
    """What is wrong with a check; None for a sound one."""
    return "; ".join(check_faults(check)) or None


def _own_check(check: Any) -> tuple[dict[str, Any], str | None]:
    """(check, fault) of a row's own column, a JSON object or its text."""
    if isinstance(check, str):
        try:
            check = json.loads(check)
        except json.JSONDecodeError as error:
            return {}, f"check is not valid JSON ({error})"
    if isinstance(check, dict):  # Parquet gives every row the keys of all kinds
        check = {name: value for name, value in check.items() if value is not None}
    return check, _fault(check)
