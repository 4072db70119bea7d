"""What went wrong in a run: one line each in `incidents.jsonl`, stacks in `incidents/`.

note(run_dir, "spike", step, "loss 7.1, ...")          # appends
note(run_dir, "hang", step, "...", process=3)          # to `incidents/process_3.jsonl`
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


def note(run_dir: Path, kind: str, step: int, text: str, *, process: int = 0) -> Path:
    """Appends an incident, on a line of its own whatever a death left of the one before.

    Each process has a file of its own: in a bucket, and on some file servers, what two append to
    is only one's.

    Returns:
        The file.
    """
    incident = Incident(round(time.time(), 3), step, kind, text)
    path = run_dir / FOLDER / f"process_{process}.jsonl" if process else run_dir / NAME
    path.parent.mkdir(exist_ok=True)
    with path.open("a", encoding="utf-8") as file:
        file.write(f"\n{json.dumps(dataclasses.asdict(incident))}\n")
    return path


def read_incidents(run_dir: Path) -> list[Incident]:
    """All of a run, oldest first; lines that are none are skipped."""
    incidents = []
    for path in (run_dir / NAME, *(run_dir / FOLDER).glob("process_*.jsonl")):
        for line in path.read_text(encoding="utf-8").splitlines() if path.is_file() else ():
            try:
                incidents.append(Incident(**json.loads(line)))
            except (ValueError, TypeError):
                continue
    return sorted(incidents, key=lambda incident: (incident.time, incident.step))
