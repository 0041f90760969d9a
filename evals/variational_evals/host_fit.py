"""Whether the installed SkyThought is one that our seams fit: written by `seams`, read by the
handler and the doctor.
"""

from importlib.metadata import version

found_faults: list[str] = []
"""What did not fit when SkyThought's command was imported."""


def require() -> None:
    """Raises: RuntimeError for a SkyThought in which our tasks would be sampled or scored in
    another way than ours.
    """
    if found_faults:
        raise RuntimeError(
            f"SkyThought {version('skythought')} does not fit these tasks (made for 0.1.0): "
            f"{'; '.join(found_faults)}"
        )
