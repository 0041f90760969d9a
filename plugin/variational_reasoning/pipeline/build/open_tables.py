"""The tables that stage 8 reads, opened together: only those that the outputs need, all of one run.

The posterior's forward KL (Eq. 9) needs no log-likelihoods, GML no answers. A table that is not
there is an error that names the outputs that need it; so are tables that were made from others than
those that are there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import polars as pl

from variational_reasoning.method.estimators import ESTIMATORS, find_estimator
from variational_reasoning.pipeline.config import Config, OutputConfig
from variational_reasoning.pipeline.reading import TableReader

STAGES = {"questions": 0, "traces": 3, "reasoner": 4, "posterior": 5, "answers": 6, "verdicts": 7}
"""Joined table to the stage that makes it; reasoner and posterior are their trace_logps."""

SCORES = ("reasoner", "posterior")
"""Models whose log-likelihoods of the traces are joined."""

KEY = ["question_id", "trace_id"]
"""What joins all tables but the questions."""

KEY_TYPES = {"question_id": pl.String, "trace_id": pl.Int32}
"""Their types in a frame that has no rows to tell them."""


@dataclass(frozen=True)
class OpenTables:
    """Name to reader of the tables of one run; the names are those of STAGES."""

    readers: Mapping[str, TableReader]

    def __contains__(self, name: object) -> bool:
        return name in self.readers

    @property
    def scores(self) -> list[str]:
        """The models whose log-likelihoods are asked for."""
        return [name for name in SCORES if name in self.readers]

    @property
    def folders(self) -> dict[str, Path]:
        """Name to folder."""
        return {name: reader.folder for name, reader in self.readers.items()}

    @property
    def manifests(self) -> dict[str, dict[str, Any]]:
        """Name to manifest."""
        return {name: reader.manifest for name, reader in self.readers.items()}

    @property
    def digests(self) -> dict[str, str]:
        """Name to `rows.table_digest`."""
        return {name: reader.digest for name, reader in self.readers.items()}

    def summary(self, name: str, columns: Sequence[str]) -> pl.DataFrame:
        """All rows, with these columns of `TableReader.summary`."""
        return pl.DataFrame(self.readers[name].columns_of_summary(columns))

    def left_out(self, name: str, cutoff_len: int) -> pl.DataFrame:
        """Rows that the table's stage left out and said so: question_id, trace_id, reason,
        is_failed.

        The trace_id is null where a question has no row at all.
        """
        schema = KEY_TYPES | {"reason": pl.String, "is_failed": pl.Boolean}
        manifest = self.readers[name].manifest
        rows = []
        for row in manifest.get("dropped", ()):
            reason = row.get("reason", "cutoff_len")
            if "cutoff_len" in reason:
                reason = f"beyond cutoff_len {cutoff_len}"
            rows.append((row["question_id"], row.get("trace_id"), reason, False))
        for row in manifest.get("failed", ()):
            rows.append((row["question_id"], row.get("trace_id"), "failed", True))
        frame = pl.DataFrame(rows, schema, orient="row")
        return frame.unique(KEY, keep="last", maintain_order=True)


def needed_tables(output: OutputConfig) -> dict[str, str]:
    """The tables other than questions and traces that an output needs, each with the setting that
    needs it.
    """
    needs: dict[str, str] = {}
    if output.ratio != "none":
        needs |= dict.fromkeys(SCORES, f"ratio {output.ratio}")
    if output.fallback in ESTIMATORS:
        tables = ESTIMATORS[output.fallback].tables
        needs |= dict.fromkeys(tables, f"fallback {output.fallback}")
    estimator = find_estimator(output.estimator)
    if not estimator.samples_answers:
        needs |= dict.fromkeys(estimator.tables, f"estimator {output.estimator}")
    settings_of_verdicts = {
        f"question_weight {output.question_factor}": output.question_factor != "none",
        "verified_only": output.verified_only,
        "hint verified": output.hint == "verified",
        f"estimator {output.estimator}": estimator.samples_answers,
    }
    for setting, is_set in settings_of_verdicts.items():
        if is_set:
            needs |= dict.fromkeys(("answers", "verdicts"), setting)
    return needs


def open_tables(config: Config, outputs: Sequence[OutputConfig]) -> OpenTables:
    """The tables that the outputs need.

    Raises: ValueError for tables that are not there, with the outputs that need them, and for
    tables of different runs.
    """
    readers: dict[str, TableReader] = {}
    faults = []
    for name, users in _wanted_tables(config, outputs).items():
        table, folder = name, config.folder(name)
        if name in SCORES:
            table, folder = "trace_logps", config.folder("trace_logps", name)
        try:
            readers[name] = TableReader(folder, table)
        except ValueError as error:
            reason = ""
            if users:
                listed = ", ".join(users)
                reason = f"; build.outputs {listed} cannot be built without stage {STAGES[name]}"
            faults.append(f"{error}{reason}")
    if faults:
        raise ValueError("\n".join(faults))
    tables = OpenTables(readers)
    faults = _foreign_inputs(tables)
    if faults:
        raise ValueError("\n".join(faults))
    return tables


def _wanted_tables(config: Config, outputs: Sequence[OutputConfig]) -> dict[str, list[str]]:
    """Table to the outputs that need it, each with the setting that does; every output needs the
    first two.
    """
    settings_of_verdicts = []
    if config.build.question_accuracy.is_set:
        settings_of_verdicts.append("build.question_accuracy")
    if config.verify.trace_check is not None:
        settings_of_verdicts.append("verify.trace_check")
    wanted: dict[str, list[str]] = {"questions": [], "traces": []}
    for output in outputs:
        for name, setting in needed_tables(output).items():
            wanted.setdefault(name, []).append(f"{output.name} ({setting})")
        for setting in settings_of_verdicts:
            for name in ("answers", "verdicts"):
                wanted.setdefault(name, []).append(f"{output.name} ({setting})")
    return wanted


def _foreign_inputs(tables: OpenTables) -> list[str]:
    """Tables that were made from another table than the one that is there now."""
    faults = []
    for name, manifest in tables.manifests.items():
        if name == "questions":
            continue
        folder = tables.folders[name]
        for source, digest in manifest["inputs"].items():
            # A source that no output needs is not open, and cannot be compared.
            if source not in tables or tables.digests[source] == digest:
                continue
            faults.append(
                f"{folder} was made from another {tables.folders[source]} than the one that is "
                f"there now, so the two are of different runs; remove {folder} and run stage "
                f"{STAGES[name]} again"
            )
    return faults


def scores_are_partial(outputs: Sequence[OutputConfig], tables: OpenTables) -> bool:
    """Whether only traces with a verified answer were scored.

    Raises: ValueError when an output needs the others, too.
    """
    partial = []
    for name in tables.scores:
        settings = tables.manifests[name]["config"]
        if settings.get("scoring.score_only") == "verified":
            partial.append(settings)
    if not partial:
        return False
    has_fallback_scores = all(settings["kept_for_fallback"] for settings in partial)
    wanting = []
    for output in outputs:
        samples_answers = find_estimator(output.estimator).samples_answers
        uses_unverified = not samples_answers or output.selection == "unweighted"
        needs_unverified = uses_unverified and not output.verified_only
        needs_fallback = output.fallback in ESTIMATORS and not has_fallback_scores
        if needs_unverified or needs_fallback:
            wanting.append(output.name)
    if wanting:
        raise ValueError(
            f"build.outputs {', '.join(wanting)} need the log-likelihoods of all traces, but they "
            "were scored with scoring.score_only: verified; remove trace_logps and score with all, "
            "or leave these outputs out"
        )
    return True
