"""With and without topology on every device, from answers of bench: docs/results/devices.md, .json and .svg.

python benchmarks/devices.py docs/results/devices.md RESULT.json [RESULT.json ...]

A later file replaces the same target, pipeline and runtime of an earlier one, as in `topokd-edge report`.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from topokd_bench.documents import merge

from topokd_edge.cli._bench_documents import read_documents
from topokd_edge.files import write_json, write_text
from topokd_edge.report import device_map, device_words, numbers, svg
from topokd_edge.report.device_names import device_name, rank, runtime_name
from topokd_edge.report.device_rows import row

INCHES = (9.4, 5.6)
PICTURE = "![Latency against accuracy of every pipeline on every target]({name})\n\n"
HEADS = (
    *("target", "pipeline", "basis", "runtime, kernel", "one window", "accuracy, 95 % interval"),
    *("RAM", "flash", "energy"),
)
TEXT = """# With and without topology, device by device

```sh
{commands}
```

{lead}

{table}

{picture}One window, from raw samples to class scores. Measured: median / 95th percentile. Modelled: a range,
from what the rules and sources below give, and not a confidence interval; nothing modelled was measured.
Counted: instructions on an emulated core, exact for that compiler. RAM is what a pipeline adds to a bare
interpreter, and on cores and boards all it takes. kB are 1000 bytes. Accuracies are on the held-out subjects
of one fold{who}.

{notes}
"""


def cells(entry: dict[str, Any]) -> list[str]:
    """A line of the table."""
    shown = row(entry, ())
    kernel = (
        f"{runtime_name(entry['runtime'])}, {entry['kernel']}"
        if entry.get("kernel")
        else shown["runtime_words"]
    )
    head = [where(entry), shown["pipeline"], entry["basis"], kernel]
    if entry.get("error"):
        return [*head, entry["error"], *[numbers.MISSING] * 4]
    accuracy = f"{shown['accuracy']} ({shown['ci95']})" if shown["ci95"] else shown["accuracy"]
    return [*head, one_window(entry, shown), accuracy, shown["ram"], shown["flash"], shown["energy"]]


def one_window(entry: dict[str, Any], shown: dict[str, Any]) -> str:
    """Latency, or where there is no time instructions."""
    if entry.get("latency_ms"):
        return (
            f"{shown['p50']} / {shown['p95']}"
            if entry["basis"] == "measured"
            else device_words.latency(entry)
        )
    return f"{shown['instructions']} instructions"


def where(entry: dict[str, Any]) -> str:
    """A target, with its name where it has one."""
    name = device_name(entry)
    return str(entry["target"]) if name == entry["target"] else f"{entry['target']} ({name})"


def table(results: Sequence[dict[str, Any]]) -> str:
    """The targets most like a watch first, and on each the pipelines as they were measured."""
    lines = [list(HEADS), ["---"] * len(HEADS), *(cells(entry) for entry in sorted(results, key=rank))]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def bases(results: Sequence[dict[str, Any]]) -> list[str]:
    """Where every modelled range comes from, each once."""
    kinds = {"latency_range_ms": "time", "cycles_range": "cycles", "energy_uj": "energy"}
    lines = [
        f"- {where(entry)}, {name}: {entry[key]['basis']}."
        for entry in sorted(results, key=rank)
        for key, name in kinds.items()
        if entry.get(key)
    ]
    return list(dict.fromkeys(lines))


def commands(files: Sequence[Path], documents: Sequence[dict[str, Any]], out: Path) -> str:
    """What makes the files, and this table."""
    lines = []
    for path, document in zip(files, documents, strict=True):
        targets = ",".join(dict.fromkeys(entry["target"] for entry in document["results"]))
        lines.append(f"topokd-edge bench BUNDLE --run RUN --on {targets} --out {path.name}")
    names = " ".join(path.name for path in files)
    return "\n".join([*lines, f"python benchmarks/devices.py {out} {names}"])


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("out", type=Path)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--made-by", help="the command that made the results, where it is not bench")
    asked = parser.parse_args(arguments)
    documents = [read_documents([path]) for path in asked.results]
    bench = merge(documents)
    results, out = bench["results"], asked.out
    mapped = device_map.collect(results)
    who = ", ".join(map(str, bench.get("subjects") or []))
    notes = [f"- {note}." for note in bench.get("notes") or []]
    text = TEXT.format(
        commands=asked.made_by or commands(asked.results, documents, out),
        lead=device_words.lead_sentence(bench),
        table=table(results),
        picture=PICTURE.format(name=out.with_suffix(".svg").name) if mapped.points else "",
        who=f" ({who})" if who else "",
        notes="\n".join([*notes, *bases(results)]),
    )
    write_text(out, text)
    write_json(out.with_suffix(".json"), bench)
    if mapped.points:
        svg.save(out.with_suffix(".svg"), INCHES, device_map.drawing(mapped, legend=True))
    print(table(results))


if __name__ == "__main__":
    main()
