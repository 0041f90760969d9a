"""Several faults, or several names, as one message: the first ones, and how many more there are."""

from collections.abc import Sequence

NUM_LISTED = 10


def list_faults(head: str, faults: Sequence[str]) -> str:
    """One message for all faults, a line each; the lines after the first ten are only counted.

        rows.jsonl: 2 faults:
          line 3 is not valid JSON
          line 7: 'gold' is missing

    Args:
        head: what is at fault, such as "rows.jsonl: 2 faults"; the colon is added.
    """
    lines = [f"{head}:"]
    lines += [f"  {fault}" for fault in faults[:NUM_LISTED]]
    if len(faults) > NUM_LISTED:
        lines.append(f"  and {len(faults) - NUM_LISTED} more")
    return "\n".join(lines)


def list_names(names: Sequence[str], most: int) -> str:
    """Names in a line: "a, b, c and 2 more" of five names, where `most` is 3."""
    listed = ", ".join(names[:most])
    if len(names) > most:
        listed += f" and {len(names) - most} more"
    return listed
