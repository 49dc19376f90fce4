// Samples in, activities out, at a steady rate. Write read_sensor(); the rest stays.
#include <student.h>

static student_t student;  // all the memory there is
static const uint32_t period = (uint32_t)(1000000.0f / STUDENT_RATE_HZ + 0.5f);  // microseconds
static uint32_t due;

// One sample, in the order of STUDENT_CHANNEL_NAMES and the units of STUDENT_UNITS.
static void read_sensor(float sample[STUDENT_CHANNELS]) {
  for (int channel = 0; channel < STUDENT_CHANNELS; channel++) {
    sample[channel] = 0.0f;
  }
}

void setup() {
  Serial.begin(115200);
  student_init(&student, STUDENT_DEFAULT_STEP);
  due = micros();
}

// Where the network takes longer than a sample, samples are lost after each answer and the next window begins anew.
// A sensor that keeps samples itself (FIFO) loses none: push all that it has kept, and forget about `due`.
void loop() {
  const uint32_t now = micros();
  const int32_t late = (int32_t)(now - due);
  if (late < 0) {
    return;
  }
  if (late >= (int32_t)period) {
    student_gap(&student);
    due = now;
  }
  due += period;

  float sample[STUDENT_CHANNELS];
  read_sensor(sample);
  const student_status status = student_push(&student, sample);
  if (status == STUDENT_NOT_FINITE) {
    student_gap(&student);
  }
  int32_t label;
  if (status == STUDENT_WINDOW && student_classify(&student, NULL, &label) == STUDENT_OK) {
    Serial.println(student_class_name(label));
  }
}
