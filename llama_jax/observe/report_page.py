"""What a run did, as one page for people: curves, where its time went, and what went wrong."""

import json
import math
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import Float

from llama_jax import recipe
from llama_jax.config import RunConfig
from llama_jax.flops import count_params
from llama_jax.observe import goodput, line_charts
from llama_jax.observe.host_table import HostTable, read_hosts
from llama_jax.observe.incidents import Incident, read_incidents
from llama_jax.observe.line_charts import Curve, chart
from llama_jax.observe.plots import HELD_OUT_KEY, TRAIN_KEY, smooth
from llama_jax.observe.progress import human_seconds
from llama_jax.observe.writers import read_metrics
from llama_jax.page import Row, bars, facts, folded, key, table, text, write_page
from llama_jax.units import human_count

Records = Sequence[dict[str, float]]
# How kinds of time are painted in the bar: made, needed, lost.
_PAINTS = {"steps": "kept", "repeated": "gone", "down": "gone"}


def write_report(run_dir: Path, out: Path) -> None:
    """Writes the page of a run that is running, dead or done.

    Args:
        run_dir: Folder of the run.
        out: Of the page.

    Raises:
        ValueError: If the folder is no run's, or no metrics have been written yet.
    """
    config_path = run_dir / "config.json"
    if not config_path.is_file():
        raise ValueError(f"RUN_DIR={str(run_dir)!r} has no config.json; is it a run's folder?")
    config: RunConfig = recipe.from_json(config_path.read_text(encoding="utf-8"))
    records = read_metrics(run_dir / "metrics.jsonl")
    if not any(TRAIN_KEY in record for record in records):
        raise ValueError(f"RUN_DIR={str(run_dir)!r}: metrics.jsonl has no {TRAIN_KEY!r} yet.")
    out.parent.mkdir(parents=True, exist_ok=True)
    body = _page(run_dir, config, records)
    write_page(out, f"Run: {config.name}", body, style=line_charts.STYLE)


def _page(run_dir: Path, config: RunConfig, records: Records) -> Iterator[str]:
    wall_time = goodput.read_goodput(run_dir / goodput.NAME)
    starts = goodput.read_starts(run_dir / goodput.NAME)
    incidents = read_incidents(run_dir)
    marks = [(i.step, i.kind) for i in incidents] + [(s.step, "restart") for s in starts[1:]]
    yield _overview(config, records, wall_time)
    yield from _loss(records, marks)
    if wall_time.total:
        yield from _time(wall_time)
    yield "<h2>Speed</h2>"
    speed = "tokens_per_second_per_chip"
    yield from _curve(records, speed, "tokens per second and chip", marks)
    yield from _curve(records, "data_seconds", "waiting for data, seconds an update", marks)
    yield "<h2>Optimization</h2>"
    yield from _curve(records, "learning_rate", "learning rate")
    yield from _curve(records, "grad_norm", "norm of the gradient before clipping", marks, log=True)
    yield from _curve(records, "param_norm", "norm of the parameters")
    yield from _mixture(config, records)
    yield from _hosts(read_hosts(run_dir))
    yield from _what_went_wrong(starts, incidents)
    everything = json.dumps(json.loads(recipe.to_json(config)), indent=2)
    yield "<h2>Recipe</h2><details><summary>Every setting</summary>"
    yield f"<pre>{text(everything)}</pre></details>"


def _overview(config: RunConfig, records: Records, wall_time: goodput.WallTime) -> str:
    last = {name: value for record in records for name, value in record.items()}
    speeds = [r["tokens_per_second_per_chip"] for r in records if "tokens_per_second_per_chip" in r]
    shown = {
        "updates": f"{last['step']:,} of {config.train.num_steps:,}",
        "tokens": human_count(last["tokens_seen"]) if "tokens_seen" in last else "–",
        "parameters": human_count(count_params(config.model).total),
        "training loss": _nats(last[TRAIN_KEY]),
        "held-out loss": _nats(last.get(HELD_OUT_KEY, math.nan)),
        "tokens per second and chip": human_count(float(np.median(speeds))) if speeds else "–",
        "MFU, attention causal": f"{last['mfu_causal']:.1%}" if "mfu_causal" in last else "–",
    }
    if wall_time.total:
        shown["goodput"] = f"{wall_time.goodput:.1%} of {human_seconds(wall_time.total)}"
    return facts(shown)


def _nats(loss: float) -> str:
    return f"{loss:.4f}" if math.isfinite(loss) else "–"


def _points(records: Records, name: str) -> Float[np.ndarray, "2 P"]:
    points = [(r["step"], r[name]) for r in records if math.isfinite(r.get(name, math.nan))]
    return np.array(points, float).reshape(-1, 2).T


def _curve(
    records: Records,
    name: str,
    title: str,
    marks: Sequence[tuple[float, str]] = (),
    *,
    log: bool = False,
) -> Iterator[str]:
    steps, values = _points(records, name)
    if len(steps):
        yield chart(title, [Curve("line", steps, values)], marks=marks, logarithmic=log)


def _loss(records: Records, marks: Sequence[tuple[float, str]]) -> Iterator[str]:
    steps, losses = _points(records, TRAIN_KEY)
    if not len(steps):
        return
    smoothed = smooth(losses, half_life=max(0.2, len(losses) / 80))
    curves = [Curve("faint", steps, losses), Curve("line", steps, smoothed)]
    held_out = _points(records, HELD_OUT_KEY)
    if held_out.size:
        curves.append(Curve("dots", *held_out))
    yield "<h2>Loss</h2>"
    yield chart("loss, nats per token", curves, marks=marks)
    told = "Line: training, smoothed, over every interval's mean."
    if held_out.size:
        told += " Dots: held-out documents."
    if marks:
        told += " Dashes: restarts and incidents, listed below."
    yield f'<p class="soft">{told}</p>'


def _time(wall_time: goodput.WallTime) -> Iterator[str]:
    total = wall_time.total
    spent = {kind: seconds for kind, seconds in wall_time.seconds.items() if seconds > 0}
    yield f"<h2>Wall time</h2><h3>{wall_time.goodput:.1%} of it made updates that count</h3>"
    bar = tuple((spent[kind] / total, _paint(kind)) for kind in sorted(spent, key=_order))
    yield f'<div class="whole">{bars([bar])}</div>'
    yield key(("kept", "updates"), ("other", "what they need"), ("gone", "lost"))
    rows = [
        Row(
            goodput.KINDS[kind],
            (human_seconds(seconds), f"{seconds / total:.1%}"),
            (((seconds / total, _paint(kind)),),),
        )
        for kind, seconds in sorted(spent.items(), key=lambda item: -item[1])
    ]
    yield table((f"of {human_seconds(total)}", "time", "share"), rows)


def _paint(kind: str) -> str:
    return _PAINTS.get(kind, "other")


def _order(kind: str) -> int:
    return ("kept", "other", "gone").index(_paint(kind))


def _mixture(config: RunConfig, records: Records) -> Iterator[str]:
    last = {name: value for record in records for name, value in record.items()}
    epochs = {name.split("/")[1]: v for name, v in last.items() if name.startswith("epochs/")}
    weights = dict(config.data.mixture) or dict.fromkeys(epochs, math.nan)
    if not weights:
        return
    yield "<h2>Mixture</h2>"
    total = sum(weights.values())
    rows = []
    for name, weight in weights.items():
        share = weight / total
        known = math.isfinite(share)
        loss = last.get(f"heldout/{name}/loss_nats_per_token", math.nan)
        rows.append(
            Row(
                name,
                (
                    f"{share:.1%}" if known else "as built",
                    f"{epochs[name]:.3g}" if name in epochs else "streamed",
                    _nats(loss),
                ),
                (((share, "kept"),),) if known else (),
            )
        )
    yield folded(("source", "share", "epochs so far", "held-out loss"), rows)


def _hosts(table: HostTable | None) -> Iterator[str]:
    if table is None:
        return
    yield f"<h2>Hosts, as they were last heard, {_when(table.time)}</h2>"
    for told in table.news():
        yield f'<p class="warn">{text(told)}</p>'
    # Who makes the others wait comes first.
    rows = [
        Row(
            f"{row.index}: {row.host}",
            (
                f"{row.step:,}",
                _seconds(row.step_seconds),
                _seconds(row.data_seconds),
                _seconds(row.busy_seconds),
                f"{row.silent_seconds:,.0f} s ago",
            ),
            (),
        )
        for row in sorted(table.rows, key=lambda row: -(row.busy_seconds or 0.0))
    ]
    head = ("process", "updates", "an update", "waiting for data", "before it waits", "heard")
    yield folded(head, rows)


def _seconds(seconds: float | None) -> str:
    return "" if seconds is None else f"{seconds:.3g} s"


def _what_went_wrong(
    starts: Sequence[goodput.Start], incidents: Sequence[Incident]
) -> Iterator[str]:
    yield "<h2>Starts and incidents</h2>"
    if starts:
        rows = [
            Row(
                _when(start.time),
                (
                    f"{start.step:,}",
                    f"{start.last_step:,}",
                    start.end or ("died, or goes on" if start is starts[-1] else "died"),
                    human_seconds(start.down_seconds) if start.down_seconds else "",
                ),
                (),
            )
            for start in starts
        ]
        yield folded(("start", "from update", "to update", "end", "down before"), rows)
    if not incidents:
        yield "<p>No incidents.</p>"
        return
    for incident in incidents:
        yield (
            f'<p class="warn"><b>{text(incident.kind)}</b> at update {incident.step:,}, '
            f"{_when(incident.time)}: {text(incident.text)}</p>"
        )


def _when(seconds: float) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))
