"""Does a trace name the question's terms, in their order? `verify.trace_check` of tiny_questions.

The steps and values may be right next to a wrong term: a posterior copies them from the hint. A model
that trains on such a trace learns a wrong meaning of the term.

    python examples/variational_reasoning/tiny_questions/check_trace.py < traces.jsonl

Reads and writes one JSON object per line, as verify/traces.py says.
"""

import json
import re
import sys

TERM = re.compile("t[0-9]{3}")


def why_wrong(question: str, trace: str) -> str:
    """The first term that differs, or nothing."""
    wanted, found = TERM.findall(question), TERM.findall(trace)
    for place, term in enumerate(wanted):
        other = found[place] if place < len(found) else "nothing"
        if other != term:
            return f"step {place + 1} is of {other}, not of {term}"
    return "" if len(found) == len(wanted) else f"{len(found)} steps, not {len(wanted)}"


def main() -> None:
    for line in sys.stdin:
        row = json.loads(line)
        reason = why_wrong(row["question"], row["trace"])
        print(json.dumps({"accepted": not reason, "reason": reason}))


if __name__ == "__main__":
    main()
