"""Random choices that depend on nothing but their arguments."""

import hashlib
import json


def draw(seed: int, what: str, *ids: str | int) -> int:
    """A number of 64 bits that is a function of its arguments only."""
    text = json.dumps([what, seed, *ids])
    digest = hashlib.sha256(text.encode()).digest()
    return int.from_bytes(digest[:8], "big")
