"""The C student as WebAssembly, with the JavaScript that feeds it."""
