"""Which errors are answers to a request, and which are bugs: what libraries raise is no answer."""

import traceback
from pathlib import Path

_PACKAGE = Path(__file__).parent
# In a checkout the pipelines lie beside the package, in a wheel inside.
_OURS = (_PACKAGE, _PACKAGE.parent / "data_pipelines")
_OUR_MODULES = ("llama_jax", "data_pipelines")


def is_refusal(error: BaseException) -> bool:
    """Whether this project's own code refused something in words, with `raise ValueError`.

    Python and libraries raise it too, where code is wrong: people need the traceback of those.
    """
    if not isinstance(error, ValueError):
        return False
    if type(error).__module__.split(".")[0] in _OUR_MODULES:
        return True  # a class of ours, which may come from another process, without a trace
    frames = traceback.extract_tb(error.__traceback__)
    if not frames or not (frames[-1].line or "").startswith("raise"):
        return False
    return any(Path(frames[-1].filename).is_relative_to(folder) for folder in _OURS)
