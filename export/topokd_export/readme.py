"""The page in a bundle for whoever builds the app."""

from __future__ import annotations

from topokd_edge.bundle import SUMS
from topokd_edge.manifest import Manifest

_PAGE = """# An activity model for your app

In: {channels} channels by {length} samples at {rate:g} Hz ({seconds:g} s). Out: one of {count} classes.

| channel | unit | mean | std |
|---|---|---|---|
{channel_rows}

| file | for | precision | bytes |
|---|---|---|---|
{file_rows}

Classes, in output order: {classes}.

## Using it

1. Collect {length} samples at {rate:g} Hz, in the units above.
2. Normalise each channel outside the model: (x - mean) / std.
3. Run the model; the largest logit is the class. Its softmax is a score, not a calibrated probability.

ONNX takes `(batch, {channels}, {length})`; TFLite takes `(1, 1, {length}, {channels})`, channels last. Labels,
rate, channels, units and normalisation are inside both too: ONNX `metadata_props`, and TFLite metadata, whose
files `unzip` reads. `_static` has a batch of 1; `_float_io` is int8 between float32 ends, for LiteRT.js.
int8 ONNX has float32 ends too, uint8 activations and int8 weights: the integers of the TFLite file.
{int8_note}{c_note}{wasm_note}
In Python, with numpy and one of onnxruntime, ai-edge-litert and tflite-runtime, all of this is done for you:

    from topokd_edge.bundle import Student

    student = Student.load(".", rate_hz={rate_exact})  # hashes checked, self-test run
    for answer in student.push(samples):  # as many as there are, shape (n, {channels}), units as above
        print(answer.start, answer.stop, answer.class_name, answer.probability)
    student.gap()  # where samples were lost: no window crosses it

A recording as a whole, from the command line: `topokd-edge predict . recording.csv --out timeline.csv`.

How right it is, on whom, and what it cannot do: `MODEL_CARD.md`.

## Before trusting it

`{self_test}` holds made-up normalised windows `x`, and for each model file the logits it must answer:
float32 within 1e-4, int8 equal on the reference kernels and within 4 steps of the output scale elsewhere.
`topokd-edge verify` does this check; `sha256sum -c {sums}` checks the files. Refuse a bundle that fails.

The people in `provenance.held_out` of `manifest.json` were never trained on: judge accuracy on them.
"""

_INT8 = """
The int8 model reads and writes int8, with the numbers in `manifest.json` under `int8`:
q = round(x / input_scale) + input_zero_point, ties to even, kept in -128..127; NaN is refused;
logit = (q - output_zero_point) * output_scale.
"""

_C = """
`c/` is the int8 model as C99, without heap, stdio or a mathematics library: compile `student.c` and
`topokd_kernels.c` into the app and read `student.h`. It normalises by itself. `main.c` is the example and
the self-test:

    cc -std=c99 -O2 main.c student.c topokd_kernels.c -o selftest && ./selftest && echo right
"""

_WASM = """
`wasm/` is the same for browsers, phones and Node.js, without a dependency: serve the folder, open
`wasm/index.html` for a self-test and answers to a pasted CSV, or use `student.js`, which normalises too:

    import { Student } from "./wasm/student.js";

    const student = await Student.load(); // picks SIMD where there is any, and checks the hash
    const answer = student.push(samples); // units and order as above: null, or { name, probability, ... }
    student.gap(); // where samples were lost

In Node.js: `await Student.from(await readFile("wasm/student.simd.wasm"))`. `student.d.ts` has every function.
"""


def readme(manifest: Manifest) -> str:
    """Return the Markdown page that explains a bundle to an app developer."""
    normalisation = manifest.normalisation
    rows = zip(manifest.channel_names, manifest.units, normalisation.mean, normalisation.std, strict=True)
    return _PAGE.format(
        channels=manifest.channels,
        length=manifest.length,
        rate=manifest.rate_hz,
        rate_exact=repr(manifest.rate_hz),
        seconds=manifest.length / manifest.rate_hz,
        count=len(manifest.class_names),
        channel_rows="\n".join(
            f"| {name} | {unit} | {mean:.6g} | {std:.6g} |" for name, unit, mean, std in rows
        ),
        file_rows="\n".join(
            f"| `{item.path}` | {item.target} | {item.precision} | {item.bytes} |" for item in manifest.files
        ),
        classes=", ".join(manifest.class_names),
        int8_note=_INT8 if manifest.int8 else "",
        c_note=_C if any(item.target == "c" for item in manifest.files) else "",
        wasm_note=_WASM if any(item.target == "wasm" for item in manifest.files) else "",
        self_test=manifest.self_test,
        sums=SUMS,
    )
