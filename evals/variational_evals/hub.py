"""What the hub's client raises where there is no hub.

huggingface-hub 1 uses httpx, older releases use requests.
"""

import importlib.util


def network_errors() -> tuple[type[Exception], ...]:
    """Exceptions of a hub that cannot be reached or does not answer as it should."""
    from huggingface_hub.errors import HfHubHTTPError, LocalEntryNotFoundError

    # requests' errors are OSErrors; httpx has its own, and a closed client is a RuntimeError
    errors = [HfHubHTTPError, LocalEntryNotFoundError, OSError, RuntimeError]
    if importlib.util.find_spec("httpx"):
        import httpx

        errors.append(httpx.HTTPError)
    return tuple(errors)
