// From the events of a phone's motion sensors to evenly spaced samples in a student's units.

/** Milliseconds between two events beyond which samples are lost and no window crosses the place. */
export const GAP_MS = 250;

const ROTATION = { x: "alpha", y: "beta", z: "gamma" };

/** The values of an event in the order and units of the plan; null where the device has no such sensor. */
export function valuesOf(event, plan, turned) {
  const values = plan.channels.map(({ sensor, axis, factor }) => {
    const value =
      sensor === "acceleration" ? event.accelerationIncludingGravity?.[axis] : event.rotationRate?.[ROTATION[axis]];
    return typeof value === "number" && Number.isFinite(value)
      ? value * factor * (turned && sensor === "acceleration" ? -1 : 1)
      : null;
  });
  return values.includes(null) ? null : values;
}

/**
 * Uneven events to an even rate: each sample is the mean over one period of the straight lines between events,
 * which keeps most of what lies above half the rate out of it.
 */
export class Resampler {
  #period;
  #gap;
  #last = null;
  #start = 0;
  #made = 0;
  #sum = [];

  constructor(rateHz, gap = () => {}) {
    this.#period = 1000 / rateHz;
    this.#gap = gap;
  }

  /** Take an event at `time` milliseconds: the samples that are complete with it, oldest first. */
  push(time, values) {
    const last = this.#last;
    if (last && !(time > last.time)) return [];
    this.#last = { time, values };
    if (!last || time - last.time > GAP_MS) {
      if (last) this.#gap();
      this.#start = time;
      this.#made = 0;
      this.#sum = values.map(() => 0);
      return [];
    }
    const samples = [];
    let from = last.time;
    for (let end = this.#end(); end <= time; end = this.#end()) {
      this.#add(last, from, end);
      samples.push(this.#sum.map((sum) => sum / this.#period));
      this.#sum.fill(0);
      this.#made += 1;
      from = end;
    }
    this.#add(last, from, time);
    return samples;
  }

  #end() {
    return this.#start + (this.#made + 1) * this.#period;
  }

  /** Add the integral from `from` to `to`: of a straight line it is its middle times its length. */
  #add(last, from, to) {
    const share = ((from + to) / 2 - last.time) / (this.#last.time - last.time);
    this.#sum = this.#sum.map(
      (sum, n) => sum + (last.values[n] + share * (this.#last.values[n] - last.values[n])) * (to - from),
    );
  }
}
