// Live answers from the phone's own motion sensors, where it has them and lets a page read them.
import { info } from "./student.js";
import { Resampler, valuesOf } from "./motion.js";

const SILENT_MS = 2000;

/** Why this phone's sensors cannot be used; null when they can be asked for. */
export function whyNot(plan) {
  if (plan.why) return plan.why;
  if (!isSecureContext)
    return (
      "Browsers give a page its motion sensors only over https or from localhost, and this page came over plain " +
      "http. With Android and a cable: adb reverse, then open the page as localhost (docs/devices/phone-browser.md)."
    );
  if (typeof DeviceMotionEvent === "undefined") return "This browser has no motion sensors to give (DeviceMotionEvent).";
  return null;
}

/** Begin; `show` is told of every answer, and of the state in between. Must be called from a tap. */
export async function begin(student, plan, show, isTurned) {
  if (DeviceMotionEvent.requestPermission && (await DeviceMotionEvent.requestPermission()) !== "granted")
    throw new Error("The sensors were not allowed. Reload the page and allow them, or allow them in the settings.");
  student.reset();
  const resampler = new Resampler(info.rateHz, () => student.gap());
  const seen = { events: 0, first: 0, last: 0, samples: 0, answers: 0 };
  const silent = setTimeout(() => show({ problem: "No sensor has said anything for 2 s: this device seems to have none." }), SILENT_MS);
  const hear = (event) => {
    const values = valuesOf(event, plan, isTurned());
    if (!values) return;
    clearTimeout(silent);
    seen.events += 1;
    seen.first ||= event.timeStamp;
    seen.last = event.timeStamp;
    for (const sample of resampler.push(event.timeStamp, values)) {
      seen.samples += 1;
      const answer = student.push(sample);
      if (answer) {
        seen.answers += 1;
        show({ answer, values, seen });
      }
    }
    if (seen.events % 15 === 0) show({ values, seen });
  };
  addEventListener("devicemotion", hear);
  return () => {
    clearTimeout(silent);
    removeEventListener("devicemotion", hear);
  };
}
