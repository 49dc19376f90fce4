/** What the student takes and answers. */
export interface Info {
  /** Samples per window, and samples per second. */
  length: number;
  /** Samples that a window begins after the one before, if nothing else is asked for. */
  step: number;
  rateHz: number;
  /** Names and units of the channels, in the order of a sample. */
  channels: string[];
  units: string[];
  /** Class names, in the order of the logits. */
  classes: string[];
  /** logit = (level - zeroPoint) * scale, where levels are the bytes the network gives. */
  scale: number;
  zeroPoint: number;
  /** WebAssembly files, with hashes as in subresource integrity: "sha256-...". */
  builds: Record<"simd" | "scalar", { file: string; hash: string }>;
}

export const info: Info;

/** Whether this machine's WebAssembly has 128-bit vectors. */
export function hasSimd(): boolean;

export interface Answer {
  /** The class with the largest logit, the first of equal ones. */
  class: number;
  name: string;
  /** Softmax of the logits: of this class, and of every class. No better calibrated than the model card says. */
  probability: number;
  probabilities: number[];
  /** Exactly those of the C student. */
  logits: Float32Array;
}

/** Samples one after another, or an array of samples; in the units of `info.units`, not normalised. */
export type Samples = ArrayLike<number> | ArrayLike<number>[];

export interface Options {
  /** How many samples a window begins after the one before, 1 to length; half a window if not given. */
  step?: number;
}

export class Student {
  private constructor();

  /**
   * Fetch the WebAssembly and make a student.
   * @param base The folder with the files; beside student.js if not given.
   * @throws Error when a file is not there, or is not that of this student (SHA-256).
   */
  static load(base?: string | URL, options?: Options & { simd?: boolean }): Promise<Student>;

  /** Make a student from the bytes of either WebAssembly file, where there is no fetch for it, as in Node. */
  static from(bytes: ArrayBuffer | Uint8Array, options?: Options): Promise<Student>;

  /**
   * Take samples, as many as there are: the newest answer, null where they complete no window.
   * @throws Error for values that are no finite numbers or no whole samples; none is taken then.
   */
  push(samples: Samples): Answer | null;

  /** The same with every answer, for pieces that may complete more than one window. */
  pushAll(samples: Samples): Answer[];

  /** Answer for one window, beside the stream. */
  classify(window: Samples): Answer;

  /** Say that samples were lost here: no window crosses this place. */
  gap(): void;

  /** Empty the window, and set the step. */
  reset(step?: number): void;
}
