"""What a stage did, and the lines that its command prints at the end."""

from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class StageSummary:
    """What a stage did.

    manifest: the table's; None while shards of other processes are missing. sampled, seconds,
    counts: what this process did, and how long it took. missing: shards that are not on disk.
    """

    folder: Path
    manifest: dict[str, Any] | None
    sampled: dict[str, int]
    seconds: float
    missing: int = 0
    counts: dict[str, int] = field(default_factory=dict)


def describe_table(summary: StageSummary) -> str:
    """The lines that a sampling or scoring command prints at its end."""
    manifest = summary.manifest
    counts = manifest["counts"] if manifest else summary.counts
    shown = ", ".join(f"{name.replace('_', ' ')} {counts[name]}" for name in sorted(counts))
    if manifest:
        size = f"{manifest['rows']} rows in {len(manifest['shards'])} shards"
        lines = [f"{summary.folder}: {size}; {shown}"]
        for what in ("dropped", "failed"):
            reasons = Counter(row["reason"] for row in manifest.get(what, ()))
            if reasons:
                listed = ", ".join(f"{count} {reason}" for reason, count in reasons.items())
                lines.append(f"{what}: {listed}")
    else:
        lines = [
            f"{summary.folder}: {summary.missing} shards are still missing, they are other "
            f"processes' work; {shown}"
        ]
    if manifest and not summary.sampled:
        lines.append("nothing to do: the table was finished before")
    else:
        tokens = summary.sampled.get("tokens", 0)
        rate = 0.0
        if summary.seconds:
            rate = tokens / summary.seconds
        lines.append(f"this run: {tokens} tokens in {summary.seconds:.1f} s, {rate:.0f} tokens/s")
        if shared := summary.sampled.get("prompt_tokens_shared"):
            share = shared / (shared + summary.sampled["prompt_tokens_computed"])
            lines[-1] += (
                f"; {shared} prompt tokens ({share:.0%}) were shared by samples and not computed "
                "again"
            )
        if deaths := summary.sampled.get("engine_deaths"):
            lines.append(
                f"vLLM's engine died {deaths} times; its samples were drawn again, see failed"
            )
    return "\n".join(lines)
