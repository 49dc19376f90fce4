"""A trained student becomes files: deploy form, ONNX, TFLite (float32 and int8), bundle."""
