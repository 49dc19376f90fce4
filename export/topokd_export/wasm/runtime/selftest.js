// Made-up windows and the logits that the export expects for them, to the last bit.
//
//     import { selfTest } from "./selftest.js";
//     if (selfTest(student).wrong > 0) throw new Error("this machine answers otherwise than the export");
import { info } from "./student.js";

const vectors = @VECTORS@;

const bytes = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

/** The windows as an app has them: of each level its middle, in the units of `info.units`. */
export function windows() {
  const levels = new Int8Array(bytes(vectors.windows).buffer);
  const { scale, zeroPoint, mean, std } = vectors;
  const channels = info.channels.length;
  const values = Float32Array.from(
    levels,
    (level, at) => (level - zeroPoint) * scale * std[at % channels] + mean[at % channels],
  );
  const size = info.length * channels;
  return Array.from({ length: values.length / size }, (_, n) => values.subarray(n * size, (n + 1) * size));
}

/** Run them through a student: how many there are, and how many of them were answered wrongly. */
export function selfTest(student) {
  const expected = new Int8Array(bytes(vectors.logits).buffer);
  const all = windows();
  const wrong = all.filter((window, n) => {
    const { logits } = student.classify(window);
    const levels = expected.subarray(n * logits.length, (n + 1) * logits.length);
    return logits.some((logit, at) => logit !== Math.fround((levels[at] - info.zeroPoint) * info.scale));
  });
  return { windows: all.length, wrong: wrong.length };
}
