"""How the models of a run came about: training curves, folds, and what was selected on whom."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from topokd_edge.files import read_json
from topokd_edge.report import figures
from topokd_edge.report.accuracy import name_of
from topokd_edge.report.inputs import Inputs, metrics, reading, trained_models


def curves(inputs: Inputs) -> list[dict[str, str]]:
    """Return one figure a trained model, with a line for each fold and seed."""
    shown = []
    for model in trained_models(inputs):
        runs: list[dict[str, list[float]]] = []
        chosen = []
        for item in inputs.finished:
            lines = metrics(item, model)
            if not lines:
                continue
            with reading(item.model_folder(model) / "metrics.jsonl"):
                runs.append(
                    {
                        "epoch": [int(line["epoch"]) + 1 for line in lines],
                        "train_loss": [float(line["train_loss"]) for line in lines],
                        "validation_accuracy": [
                            float("nan" if (share := line["validation_accuracy"]) is None else share)
                            for line in lines
                        ],
                    }
                )
            chosen.append(_epoch(_selection(item.folder), model))
        shown.append({"name": name_of(model), "svg": figures.training_curves(model, runs, chosen)})
    return shown


def folds_table(inputs: Inputs) -> list[dict[str, Any]]:
    """Return one row a fold: who is tested, who selects, who is learned from, and what was selected."""
    rows = []
    for fold in inputs.folds:
        seeds = [item for item in inputs.finished if item.fold == fold["fold"]]
        rows.append(
            {
                "fold": fold["fold"],
                "test": fold["test"],
                "validation": fold["validation"],
                "fit": fold["fit"],
                "selected": [{"seed": item.seed, **_selected(_selection(item.folder))} for item in seeds],
            }
        )
    return rows


def _selected(selection: dict[str, Any]) -> dict[str, Any]:
    """Return the kept epochs, and the candidates with the one that was kept first."""
    epochs = selection.get("epochs", {})
    candidates = selection.get("candidates", [])
    chosen = selection.get("chosen")
    return {
        "epochs": [(name_of(model), _epoch(selection, model)) for model in epochs],
        "chosen": chosen,
        "candidates": len(candidates),
        "settings": [
            ", ".join(f"{key} {value}" for key, value in candidate["settings"].items())
            for candidate in candidates
            if candidate["candidate"] == chosen
        ],
    }


def _selection(folder: Path) -> dict[str, Any]:
    path = folder / "selection.json"
    return dict(read_json(path)) if path.is_file() else {}


def _epoch(selection: dict[str, Any], model: str) -> int | None:
    epoch = selection.get("epochs", {}).get(model)
    return epoch + 1 if isinstance(epoch, int) else None
