"""The page in a bundle for whoever builds the app."""

from __future__ import annotations

import shlex

from topokd_edge.bundle import SUMS
from topokd_edge.manifest import Manifest

_PAGE = r"""# An activity model for your app

In: {channels} channels by {length} samples at {rate:g} Hz ({seconds:g} s). Out: one of {count} classes.

| channel | unit | mean | std |
|---|---|---|---|
{channel_rows}

| file | for | precision | bytes |
|---|---|---|---|
{file_rows}

Classes, in output order: {classes}.

## Using it

Every command and path below is from this folder. Keep your own files out of it, also what you compile:
a bundle with a file that is not in `{sums}` is refused.

{own} takes samples as they come, in the units and channel order above, and normalises by itself.
The first answer comes after {length} samples, then one every half window ({half:g} s) unless you ask for
another step. A probability is the softmax of the logits: a score, not calibrated.
{c_note}{wasm_note}
### Python

This needs the package `topokd-edge`, without extras, and one of onnxruntime, ai-edge-litert and
tflite-runtime. `load` takes float32 where there is one: `precision="int8"` asks for the other, and
`overlap=0.75` for more answers.

    from topokd_edge.bundle import Student

    student = Student.load(".", rate_hz={rate_exact})  # hashes checked, self-test run
    for answer in student.push(samples):  # as many as there are, shape (n, {channels})
        print(answer.start, answer.stop, answer.class_name, f"{{answer.probability:.4f}}")
    student.gap()  # where samples were lost: no window crosses it

A recording as a whole, from the command line: here a CSV with a line of channel names, with or without a
column of time. `topokd-edge predict --help` tells of other formats.

    topokd-edge predict . ../recording.csv --rate {rate_exact} \
        --units {units} --yes --out ../timeline.csv
{exact_note}
### A model file alone

1. Collect {length} samples at {rate:g} Hz.
2. Normalise each channel outside the model: (x - mean) / std, with all digits as in `manifest.json`.
3. Run the model; the largest logit is the class.

ONNX takes `(batch, {channels}, {length})`; TFLite takes `(1, 1, {length}, {channels})`, channels last.
Labels, rate, channels, units and normalisation are inside both too: ONNX `metadata_props`, and TFLite
metadata, whose files `unzip` reads.
{variants}{int8_note}
## Before trusting it

How right it is, on whom, and what it cannot do: `MODEL_CARD.md`.

`{self_test}` holds made-up normalised windows `x`, and for each model file the logits it must answer:
float32 within 1e-4; int8 equal in C, in WebAssembly and on the reference kernels, and within 4 steps of the
output scale elsewhere. `topokd-edge verify .` does this check; `sha256sum -c {sums}` checks the files.
Refuse a bundle that fails.

The people in `provenance.held_out` of `manifest.json` were never trained on: judge accuracy on them.
"""

_STATIC = "`_static` has a batch of 1.\n"
_FLOAT_IO = "`_float_io` is int8 between float32 ends, for LiteRT.js.\n"
_INT16 = (
    "`_int16` has int8 weights and int16 activations: nearer to float32 than int8, slow on CPUs. It\n"
    "reads and writes int16, scales in `manifest.json` under `int16`: q = round(x / input_scale), ties to\n"
    "even, kept in -32768..32767; logit = q * output_scale.\n"
)
_INT8_ONNX = (
    "int8 ONNX has float32 ends, uint8 activations and int8 weights: the integers of the TFLite file.\n"
)

_INT8 = """
The int8 TFLite file reads and writes int8, with the numbers in `manifest.json` under `int8`:
q = round(x / input_scale) + input_zero_point, ties to even, kept in -128..127; NaN is refused;
logit = (q - output_zero_point) * output_scale.
"""

_EXACT = """
In int8 Python runs the fast kernels of its runtime. Their logits may be up to 4 steps of the output scale
off, so the class may be another where two are nearly equal. The reference kernels are slower and give
exactly the logits of C and WebAssembly; they need ai-edge-litert or tflite-runtime:

    from pathlib import Path

    from topokd_edge.bundle import Bundle, Student, open_model

    bundle = Bundle.open(Path("."))
    bundle.check_hashes()
    student = Student(bundle, open_model(bundle.model_path("tflite", "int8"), reference_kernels=True))
"""

_C = r"""
### C

`c/` is the int8 model as C99, without heap, stdio or a mathematics library. `main.c` is its self-test:

    cc -std=c99 -O2 c/main.c c/student.c c/topokd_kernels.c -o ../selftest && ../selftest && echo right

A copy of the folder is also a library for Arduino and PlatformIO (sketches in `examples/`) and a Zephyr
module. Elsewhere an app compiles `student.c` and `topokd_kernels.c` with its own files; `student.h` has every
function. This `../app.c` reads a CSV: a line of names, then a line of numbers for each sample. Only
the probability needs `math.h`.

    #include <math.h>
    #include <stdio.h>

    #include "student.h"

    static student_t student; /* all the memory there is */

    static void on_sample(const float sample[STUDENT_CHANNELS], long count)
    {
        int8_t logits[STUDENT_CLASSES];
        int32_t label;
        int32_t i;
        double sum = 0.0;
        const student_status status = student_push(&student, sample);
        if (status == STUDENT_NOT_FINITE) {
            student_gap(&student); /* samples were lost: no window crosses this place */
        }
        if ((status != STUDENT_WINDOW) || (student_classify(&student, logits, &label) != STUDENT_OK)) {
            return; /* no answer yet */
        }
        for (i = 0; i < STUDENT_CLASSES; i++) {
            sum += exp((double)student_logit(logits[i]) - (double)student_logit(logits[label]));
        }
        printf("%ld %ld %s %.4f\n", count - STUDENT_LENGTH, count, student_class_name(label), 1.0 / sum);
    }

    int main(void)
    {
        float sample[STUDENT_CHANNELS];
        long count = 0;
        int i = STUDENT_CHANNELS;
        student_init(&student, STUDENT_DEFAULT_STEP);
        if (scanf("%*[^\n]") == EOF) {
            return 1;
        }
        while (i == STUDENT_CHANNELS) {
            for (i = 0; (i < STUDENT_CHANNELS) && (scanf("%f%*[,]", &sample[i]) == 1); i++) {
            }
            if (i == STUDENT_CHANNELS) {
                on_sample(sample, ++count);
            }
        }
        return (feof(stdin) && (i == 0)) ? 0 : 1;
    }

It is built and run so:

    cc -std=c99 -O2 -I c ../app.c c/student.c c/topokd_kernels.c -lm -o ../app && ../app < ../recording.csv
"""

_WASM = """
### JavaScript

`wasm/` is the int8 model for browsers, phones and Node.js, without a dependency. Serve this folder with
`python3 -m http.server`: `http://localhost:8000/wasm/` is a self-test, and answers to a pasted CSV. An app
serves `wasm/` with its own files, and uses `student.js`; `student.d.ts` has every function.

    import { Student, info } from "./wasm/student.js"; // the path from your script

    const student = await Student.load(); // picks SIMD where there is any, and checks the hash
    let count = 0;
    for (const sample of samples) { // each an array of a number for each channel
      const answer = student.push(sample); // null, or { name, probability, ... }; throws for NaN
      count += 1;
      if (answer) console.log(count - info.length, count, answer.name, answer.probability.toFixed(4));
    }
    student.gap(); // where samples were lost: no window crosses it

Of many samples at once `push` gives the newest answer alone, and `pushAll` every one. Node.js fetches no
files; there a student is made so:

    import { readFile } from "node:fs/promises";

    const file = new URL("./wasm/student.simd.wasm", import.meta.url); // the path from your script
    const student = await Student.from(await readFile(file));
"""


def readme(manifest: Manifest) -> str:
    """Return the Markdown page that explains a bundle to an app developer."""
    normalisation = manifest.normalisation
    rows = zip(manifest.channel_names, manifest.units, normalisation.mean, normalisation.std, strict=True)
    targets = {item.target for item in manifest.files}
    units = ",".join(
        f"{name}={unit}" for name, unit in zip(manifest.channel_names, manifest.units, strict=True)
    )
    own = [name for target, name in (("c", "`c/`"), ("wasm", "`wasm/`")) if target in targets]
    return _PAGE.format(
        channels=manifest.channels,
        length=manifest.length,
        rate=manifest.rate_hz,
        rate_exact=repr(manifest.rate_hz),
        seconds=manifest.length / manifest.rate_hz,
        half=manifest.length / manifest.rate_hz / 2,
        count=len(manifest.class_names),
        channel_rows="\n".join(
            f"| {name} | {unit} | {mean:.6g} | {std:.6g} |" for name, unit, mean, std in rows
        ),
        file_rows="\n".join(
            f"| `{item.path}` | {item.target} | {item.precision} | {item.bytes} |" for item in manifest.files
        ),
        classes=", ".join(manifest.class_names),
        own=f"Each of {', '.join(own)} and the Python class" if own else "The Python class",
        units=shlex.quote(units),
        variants=_variants(manifest),
        int8_note=_INT8 if manifest.int8 else "",
        exact_note=_EXACT if manifest.int8 else "",
        c_note=_C if "c" in targets else "",
        wasm_note=_WASM if "wasm" in targets else "",
        self_test=manifest.self_test,
        sums=SUMS,
    )


def _variants(manifest: Manifest) -> str:
    """Return what must be said of the kinds of file that are there, and of no other."""
    names = [item.path for item in manifest.files]
    return (
        (_STATIC if any("_static" in name for name in names) else "")
        + (_FLOAT_IO if any("_float_io" in name for name in names) else "")
        + (_INT16 if manifest.int16 else "")
        + (_INT8_ONNX if any("int8" in name and name.endswith(".onnx") for name in names) else "")
    )
