// Run this first: it says whether the model answers on this board as it did when it was exported.
#include <student.h>

extern "C" int student_self_test(void);  // of main.c

void setup() {
  Serial.begin(115200);
}

void loop() {
  Serial.println(student_self_test() == 0 ? "right" : "WRONG");
  delay(2000);
}
