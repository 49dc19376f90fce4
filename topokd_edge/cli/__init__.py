"""The command line: one file per verb; nothing heavy is imported before a verb runs."""

from __future__ import annotations

import errno
import sys

import typer

from topokd_edge.cli import bench as bench_verb
from topokd_edge.cli import console
from topokd_edge.cli import data as data_verbs
from topokd_edge.cli import demo as demo_verb
from topokd_edge.cli import doctor as doctor_verb
from topokd_edge.cli import evaluate as evaluate_verb
from topokd_edge.cli import export as export_verb
from topokd_edge.cli import firmware as firmware_verb
from topokd_edge.cli import predict as predict_verb
from topokd_edge.cli import report as report_verb
from topokd_edge.cli import topology as topology_verbs
from topokd_edge.cli import train as train_verb
from topokd_edge.cli import tune as tune_verb
from topokd_edge.cli import verify as verify_verb
from topokd_edge.errors import TopokdError

app = typer.Typer(
    name="topokd-edge",
    help="From wearable recordings to a small int8 model on your device, and the truth about it.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
    rich_markup_mode=None,
)

_UNWRITABLE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS, errno.EACCES, errno.EPERM)
_EXTRA_OF = {
    **dict.fromkeys(("torch", "ripser", "persim", "numba", "sklearn", "scipy", "safetensors"), "train"),
    **dict.fromkeys(("pydantic", "tomli_w", "matplotlib", "jinja2"), "train"),
    **dict.fromkeys(("onnx", "litert_quantizer", "flatbuffers"), "export"),
    **dict.fromkeys(("onnxruntime", "ai_edge_litert"), "bench"),
    **dict.fromkeys(("optuna", "sqlalchemy"), "tune"),
    "seglearn": "demo",
    "lightning_fabric": "distributed",
}


@app.callback()
def _root() -> None:
    """From wearable recordings to a small int8 model on your device, and the truth about it."""


app.command("demo")(demo_verb.demo)
app.add_typer(data_verbs.app, name="data")
app.command("train")(train_verb.train)
app.command("tune")(tune_verb.tune)
app.command("evaluate")(evaluate_verb.evaluate)
app.command("export")(export_verb.export)
app.command("verify")(verify_verb.verify)
app.add_typer(topology_verbs.app, name="topology")
app.command("bench")(bench_verb.bench)
app.command("firmware")(firmware_verb.firmware)
app.command("doctor")(doctor_verb.doctor)
app.command("predict")(predict_verb.predict)
app.command("report")(report_verb.report)


def main() -> None:
    """Run the program and leave with the exit code of its contract."""
    try:
        app()
    except TopokdError as error:
        console.fail(str(error))
        sys.exit(error.exit_code)
    except SystemExit as error:  # Typer turns Ctrl-C into this, without a word
        if error.code == 130:
            console.fail("interrupted; nothing half-written is left, and a run continues with --resume")
        raise
    except ModuleNotFoundError as error:
        extra = _EXTRA_OF.get((error.name or "").partition(".")[0])
        if extra is None:
            raise
        console.fail(
            f"the package {error.name!r} is needed here and is not installed\n"
            f"What to do: pip install 'topokd-edge[{extra}]' (topokd-edge doctor lists what is missing)"
        )
        sys.exit(4)
    except OSError as error:
        if error.errno not in _UNWRITABLE:
            raise
        where = error.filename or "the output"
        console.fail(
            f"{where}: cannot be written ({error.strerror})\nWhat to do: free space or choose another --out"
        )
        sys.exit(4)
