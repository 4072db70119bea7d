"""What went wrong in a run: one line each in `incidents.jsonl`, stacks in `incidents/`.

note(run_dir, "spike", step, "loss 7.1, ...")          # appends; any process may
read_incidents(run_dir) -> list[Incident]
"""

import dataclasses
import json
import time
from pathlib import Path

NAME = "incidents.jsonl"
FOLDER = "incidents"


@dataclasses.dataclass(frozen=True, slots=True)
class Incident:
    """Something that went wrong.

    Attributes:
        time: In seconds since 1970.
        step: Updates made.
        kind: "spike", "damaged checkpoint", "hang", "slow host", "rewind", ...
        text: For people.
    """

    time: float
    step: int
    kind: str
    text: str


def note(run_dir: Path, kind: str, step: int, text: str) -> None:
    """Appends an incident, on a line of its own whatever a death left of the one before."""
    incident = Incident(round(time.time(), 3), step, kind, text)
    with (run_dir / NAME).open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(dataclasses.asdict(incident))}\n")


def read_incidents(run_dir: Path) -> list[Incident]:
    """All of a run, oldest first; lines that are none are skipped."""
    path = run_dir / NAME
    incidents = []
    for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
        try:
            incidents.append(Incident(**json.loads(line)))
        except (ValueError, TypeError):
            continue
    return incidents
