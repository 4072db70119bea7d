"""What all conversions ask and tell of the folder that they write."""

import dataclasses
import json
import shutil
import sys
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from llama_jax.convert.forecast import Forecast


def tell_plan(plan: "Forecast", *, as_json: bool) -> int:
    """Tells people, and programs if asked, what a conversion takes; returns 0."""
    if as_json:
        print(json.dumps(dataclasses.asdict(plan)))
    print(plan, file=sys.stderr)
    return 0


def tell_kept(count: int) -> None:
    """Tells people that an earlier start is gone on with."""
    print(f"an earlier start wrote {count:,} parts; they are compared and kept", file=sys.stderr)


def check_disk(out_dir: Path, num_bytes: int) -> None:
    """Raises ValueError if a folder's disk has less room, what an earlier start wrote included."""
    from llama_jax.convert.result_folder import bytes_written

    there = next(
        path for path in (out_dir.absolute(), *out_dir.absolute().parents) if path.exists()
    )
    free = shutil.disk_usage(there).free + bytes_written(out_dir)
    if free < num_bytes:
        raise ValueError(
            f"OUT_DIR={str(out_dir)!r}: {num_bytes:,} bytes are needed, {free:,} are free; make "
            "room, or name a folder on another disk."
        )
