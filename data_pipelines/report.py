"""What a build did, as one page for people: `report.json` in pictures.

Documents are hostile input; see `llama_jax.page`.
"""

import itertools
import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from llama_jax.page import Row, facts, folded, key, table, text, write_page
from llama_jax.plain_text import amount, byte_size, percent

from .report_charts import columns, counted, example, power_labels

REPORT_PAGE = "report.html"
_SPLITS = {"train": "→ for training", "heldout": "→ held out"}
_MAX_DEATHS = 5
# Groups of near duplicates are counted from each of these sizes to the next.
_SIZES = (2, 3, 4, 8, 16, 32, 64, 128, 1024)


def write_report(report: dict[str, Any], path: Path) -> None:
    """Writes the page.

    Args:
        report: The contents of `report.json`.
        path: Of the page.
    """
    write_page(path, f"Data build: {report['name']}", _page(report))


def place_name(name: str) -> str:
    """A place that documents pass, as people call it: "PersonalDataStage" is personal data."""
    words = re.sub(r"(Stage|Filter)$", "", name)
    return (
        "quality rules" if words == "Rule" else re.sub(r"(?<=[a-z])(?=[A-Z])", " ", words).lower()
    )


def funnel(source: dict[str, Any]) -> list[tuple[str, tuple[str, ...]]]:
    """What is left of a source after each place, as text; head row first.

    Tokens are counted at the end alone: before that they are estimated by bytes, as "≈".
    """
    kept = totals(source)
    passages = source["passages"]
    read = passages[0]["documents"] if passages else 0
    rows: list[tuple[str, tuple[str, ...]]] = [
        ("left after", ("documents", "dropped here", "of those read", "text", "tokens"))
    ]
    for before, passage in zip([*passages[:1], *passages], passages, strict=False):
        gone = before["documents"] - passage["documents"]
        tokens = _estimate(passage["text_bytes"], kept)
        rows.append(
            (
                place_name(passage["name"]),
                (
                    f"{passage['documents']:,}",
                    f"{gone:,}" if gone else "",
                    percent(passage["documents"], read),
                    byte_size(passage["text_bytes"]),
                    f"≈ {amount(tokens, 2)}" if tokens else "–",
                ),
            )
        )
    for split, counts in source["splits"].items():
        rows.append(
            (
                _SPLITS[split],
                (
                    f"{counts['documents']:,}",
                    "",
                    percent(counts["documents"], read),
                    byte_size(counts["text_bytes"]),
                    amount(counts["tokens"]),
                ),
            )
        )
    return rows


def totals(source: dict[str, Any]) -> dict[str, int]:
    """Documents, tokens and bytes of all splits of a source."""
    return {
        what: sum(counts[what] for counts in source["splits"].values())
        for what in ("documents", "tokens", "text_bytes")
    }


def _estimate(text_bytes: int, kept: dict[str, int]) -> float:
    """Tokens of so much text, to two digits, if they are as long as those kept."""
    tokens = text_bytes * kept["tokens"] / kept["text_bytes"] if kept["text_bytes"] else 0
    return float(f"{tokens:.2g}")


def _page(report: dict[str, Any]) -> Iterator[str]:
    sources = report["sources"]
    yield from _overview(report)
    yield from _deaths(report["worker_deaths"])
    if len(sources) > 1:
        yield from _sources(sources)
    if sources:
        yield from _mixture(report["mixture"])
    for number, (name, source) in enumerate(sources.items()):
        yield f'<section id="source-{number}"><h2>{text(name)}</h2>'
        yield from _source(source)
        yield "</section>"
    recipe = json.dumps(report["config"], indent=2, ensure_ascii=False)
    yield f"<h2>Recipe</h2><details><summary>Every setting</summary><pre>{text(recipe)}</pre>"
    yield f"</details><p class='soft'>Tokenizer SHA-256 {text(report['tokenizer']['sha256'])}</p>"


def _overview(report: dict[str, Any]) -> Iterator[str]:
    sources = report["sources"].values()
    read = sum(source["passages"][0]["documents"] for source in sources if source["passages"])
    kept = [totals(source) for source in sources]
    documents, tokens, text_bytes = (
        sum(each[what] for each in kept) for what in ("documents", "tokens", "text_bytes")
    )
    tokenizer = report["tokenizer"]
    numbers = {
        "raw files": f"{sum(source['files'] for source in sources):,}",
        "raw size": byte_size(sum(source["raw_bytes"] for source in sources)),
        "documents read": amount(read),
        "documents kept": f"{amount(documents)} ({percent(documents, read)})",
        "text kept": byte_size(text_bytes),
        "tokens": amount(tokens),
        "bytes a token": f"{text_bytes / tokens:.2f}" if tokens else "–",
        f"tokenizer, {tokenizer['kind']}": f"{tokenizer['vocab_size']:,} ids",
    }
    yield facts(numbers)


def _deaths(deaths: list[list[str]]) -> Iterator[str]:
    if deaths:
        named = "".join(example(" or ".join(tasks), "") for tasks in deaths[:_MAX_DEATHS])
        yield (
            f'<div class="warn"><b>Workers died: {len(deaths):,}</b>. What they were at work on '
            f"was run again:{named}</div>"
        )


def _sources(sources: dict[str, Any]) -> Iterator[str]:
    kept = {name: totals(source) for name, source in sources.items()}
    most = max((each["tokens"] for each in kept.values()), default=0) or 1
    largest = max(kept, key=lambda name: kept[name]["tokens"])
    yield f"<h2>Sources</h2><h3>{text(largest)} gives the most tokens</h3>"
    rows = []
    for name, source in sources.items():
        read = source["passages"][0]["documents"] if source["passages"] else 0
        cells = (
            f"{source['files']:,}",
            byte_size(source["raw_bytes"]),
            f"{read:,}",
            f"{kept[name]['documents']:,}",
            percent(kept[name]["documents"], read),
            byte_size(kept[name]["text_bytes"]),
            amount(kept[name]["tokens"]),
        )
        rows.append(Row(name, cells, (((kept[name]["tokens"] / most, "kept"),),)))
    head = ("source", "raw files", "raw size", "documents read", "kept", "of those read")
    yield table((*head, "text kept", "tokens"), rows)
    links = (f'<a href="#source-{at}">{text(name)}</a>' for at, name in enumerate(sources))
    yield f"<p>In detail: {', '.join(links)}</p>"


def _mixture(mixture: dict[str, Any]) -> Iterator[str]:
    have, wanted = mixture["tokens"], mixture["wanted"]
    if not wanted:
        if len(have) > 1:
            yield "<h3>Training sees sources as they have tokens: no mixture was asked for</h3>"
        return
    passes = {name: wanted.get(name, 0) / share for name, share in have.items() if share}
    often = max(passes, key=lambda name: passes[name], default="")
    yield "<h2>Mixture</h2><h3>"
    if often and passes[often] >= 1.05:
        yield (
            f"At the wanted mixture, training reads a token of {text(often)} "
            f"{passes[often]:.1f} times as often as the average token</h3>"
        )
    else:
        yield "The tokens are there in the mixture that is wanted</h3>"
    most = max((*have.values(), *wanted.values()), default=0) or 1
    rows = []
    for name in sorted({*have, *wanted}, key=lambda name: (-wanted.get(name, 0), name)):
        asked, there = wanted.get(name, 0), have.get(name, 0)
        times = f"{passes[name]:.2f}" if name in passes else "–"
        bars = (((asked / most, "other"),), ((there / most, "kept"),))
        rows.append(Row(name, (percent(asked, 1), percent(there, 1), times), bars))
    yield key(("other", "wanted"), ("kept", "share of the training tokens"))
    yield table(("source", "wanted", "of the tokens", "times as often"), rows)


def _source(source: dict[str, Any]) -> Iterator[str]:
    files = f"{source['files']:,} raw {'file' if source['files'] == 1 else 'files'}"
    yield f'<p class="soft">{files}, {byte_size(source["raw_bytes"])}</p>'
    if source["num_bad"]:
        named = "".join(example(name, "") for name in source["bad"])
        what = "file or record" if source["num_bad"] == 1 else "files or records"
        yield (
            f'<div class="warn"><b>Damaged: {source["num_bad"]:,} {what}</b>, left out. '
            f"The first:{named}</div>"
        )
    yield from _funnel(source)
    yield from _dropped(source["dropped"], totals(source))
    yield from _lengths(source["lengths"])
    yield from _languages(source["languages"])
    yield from _duplicates(source["duplicate_groups"])
    for name, counts in source["notes"].items():
        total = sum(counts.values())
        yield f"<h3>Counted on the way: {text(name)}, {total:,}</h3>"
        yield counted(("", "count"), counts.items(), "other")


def _funnel(source: dict[str, Any]) -> Iterator[str]:
    passages = source["passages"]
    read = passages[0]["documents"] if passages else 0
    left = passages[-1]["documents"] if passages else 0
    title = f"{percent(left, read)} of {read:,} documents are kept"
    steps = list(itertools.pairwise(passages))
    if steps and left < read:
        before, after = max(steps, key=lambda step: step[0]["documents"] - step[1]["documents"])
        lost = before["documents"] - after["documents"]
        title += f"; most go at “{place_name(after['name'])}”, {lost:,}"
    yield f"<h3>{text(title)}</h3>"
    yield (
        key(("kept", "left"), ("gone", "dropped here"), ("other", "in the dataset"))
        + '<p class="soft">Upper bar: documents. Lower bar: bytes of text. ≈ is estimated.</p>'
    )
    measures = ("documents", "text_bytes")
    most = {what: max((each[what] for each in passages), default=0) or 1 for what in measures}
    bars = [
        tuple(
            (
                (after[what] / most[what], "kept"),
                ((before[what] - after[what]) / most[what], "gone"),
            )
            for what in measures
        )
        for before, after in zip([*passages[:1], *passages], passages, strict=False)
    ] + [
        tuple(((counts[what] / most[what], "other"),) for what in measures)
        for counts in source["splits"].values()
    ]
    head, *rows = funnel(source)
    made = (Row(label, cells, of_row) for (label, cells), of_row in zip(rows, bars, strict=True))
    yield table((head[0], *head[1]), made)


def _dropped(dropped: dict[str, Any], kept: dict[str, int]) -> Iterator[str]:
    if not dropped:
        yield "<h3>No rule dropped a document</h3>"
        return
    counts = {reason: entry["count"] for reason, entry in dropped.items()}
    ordered = sorted(counts, key=lambda reason: (-counts[reason], reason))
    first = ordered[0]
    share = percent(counts[first], sum(counts.values()))
    yield f"<h3>Why documents or records were left out: {share} for “{text(first)}”</h3>"
    sizes = {}
    for reason, entry in dropped.items():
        tokens = _estimate(entry["text_bytes"], kept)
        estimated = f" ≈ {amount(tokens, 2)} tokens" if tokens else ""
        # What never became text has no size.
        size = byte_size(entry["text_bytes"]) if entry["text_bytes"] else "–"
        sizes[reason] = f"{size}{estimated}"
    yield counted(("reason", "left out"), counts.items(), "gone", beside=("text", sizes))
    yield "<h3>The first documents that each reason left out</h3>"
    yield '<p class="soft">All of them, with rule and value, are rows of dropped/*.parquet.</p>'
    for at, reason in enumerate(ordered):
        shown = "".join(example(e["id"], e["text"]) for e in dropped[reason]["examples"])
        head = f"<summary>{text(reason)} ({counts[reason]:,})</summary>"
        yield f"<details{' open' * (at == 0)}>{head}{shown}</details>"


def _lengths(lengths: dict[str, list[int]]) -> Iterator[str]:
    size = max(map(len, lengths.values()), default=0)
    train, heldout = (
        [*lengths.get(split, []), *[0] * (size - len(lengths.get(split, [])))]
        for split in ("train", "heldout")
    )
    both = [sum(pair) for pair in zip(train, heldout, strict=True)]
    if not any(both):
        return
    first = next(power for power, count in enumerate(both) if count)
    median = _median(both)
    title = f"Half of the documents have fewer than {2 ** (median + 1):,} tokens"
    yield f"<h3>{title}</h3>"
    yield key(("kept", "documents for training"), ("other", "held out"))
    yield '<p class="soft">A column is of documents from so many tokens to twice as many; 1k is '
    yield "1,024.</p>"
    yield columns(
        power_labels(first, size - 1),
        (("kept", train[first:]), ("other", heldout[first:])),
        f"Documents by tokens. {title}.",
    )


def _median(counts: list[int]) -> int:
    """The column in which half of all is reached."""
    seen = 0
    for at, count in enumerate(counts):
        seen += count
        if 2 * seen >= sum(counts):
            return at
    return 0


def _languages(languages: dict[str, int]) -> Iterator[str]:
    if not any(languages):
        return
    named = {code or "not identified": count for code, count in languages.items()}
    first = max(languages, key=lambda code: languages[code])
    share = percent(languages[first], sum(languages.values()))
    what = f"are in “{text(first)}”" if first else "have no language identified"
    yield f"<h3>Languages: {share} of the documents kept {what}</h3>"
    yield counted(("language", "documents"), named.items(), "kept")


def _duplicates(groups: list[list[int]]) -> Iterator[str]:
    if not groups:
        return
    number = sum(count for _, count in groups)
    gone = sum((size - 1) * count for size, count in groups)
    largest = max(size for size, _ in groups)
    yield (
        f"<h3>Near duplicates: {number:,} groups of documents alike, the largest of {largest:,}; "
        f"{gone:,} dropped</h3>"
    )
    ranges: dict[int, int] = {}
    for size, count in groups:
        start = max(each for each in _SIZES if each <= max(size, 2))
        ranges[start] = ranges.get(start, 0) + count
    most = max(ranges.values())
    rows = [
        Row(_range(start), (f"{count:,}",), (((count / most, "gone"),),))
        for start, count in sorted(ranges.items())
    ]
    yield folded(("documents in a group", "groups"), rows)


def _range(start: int) -> str:
    following = _SIZES[_SIZES.index(start) + 1 :]
    if not following:
        return f"{start:,} or more"
    last = following[0] - 1
    return f"{start:,}" if last == start else f"{start:,} to {last:,}"
