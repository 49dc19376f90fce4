"""Stand-ins of the npm packages of other engines: they load all their files and answer `expected_of`."""

from __future__ import annotations

import json
from pathlib import Path

_PROBE = bytes.fromhex("0061736d01000000")
"""The shortest WebAssembly module."""
_ORT = """
export const env = { wasm: {} };
export class Tensor {
  constructor(type, data, dims) { Object.assign(this, { type, data, dims }); }
}
export const InferenceSession = {
  async create(model, { executionProviders: [provider] }) {
    if (provider !== "wasm" || env.wasm.numThreads !== 1) throw new Error("expected one thread of wasm");
    if (!new TextDecoder().decode(model).startsWith("content of ")) throw new Error("not the model file");
    const { ready } = await import(env.wasm.wasmPaths + "ort-wasm-simd-threaded.mjs");
    await ready(await (await fetch(env.wasm.wasmPaths + "ort-wasm-simd-threaded.wasm")).arrayBuffer());
    return {
      inputNames: ["input"],
      outputNames: ["logits"],
      async run({ input: { type, data, dims: [batch, channels, length] } }) {
        if (type !== "float32" || batch !== 1) throw new Error("expected one float32 window");
        const row = (k) => data.subarray(k * length, (k + 1) * length);
        const logits = Float32Array.from({ length: channels }, (_, k) =>
          row(k).reduce((sum, one, n) => sum + one * (n + 1), 0) / length);
        return { logits: { data: logits } };
      },
    };
  },
};
"""
_ORT_PART = "export const ready = (bytes) => WebAssembly.compile(bytes);\n"
_LITERT = """
// As in the package, whose one import has no address.
import { createWasmLib } from "@litertjs/wasm-utils";
let loaded;
export async function loadLiteRt(folder) {
  loaded = await createWasmLib(Object, folder + "litert_wasm_compat_internal.js");
}
export class Tensor {
  constructor(data, dims) { Object.assign(this, { data, dims }); }
  toTypedArray() { return this.data; }
  delete() { if (this.deleted) throw new Error("deleted twice"); this.deleted = true; }
}
export async function loadAndCompile(model, { accelerator }) {
  if (!loaded || accelerator !== "wasm") throw new Error("expected the loaded wasm");
  if (!new TextDecoder().decode(model).startsWith("content of ")) throw new Error("not the model file");
  return {
    async run({ data, dims: [batch, height, length, channels] }) {
      if (batch !== 1 || height !== 1) throw new Error("expected one window");
      const logits = new Float32Array(channels);
      for (let k = 0; k < channels; k++) {
        let sum = 0;
        for (let n = 0; n < length; n++) sum += data[n * channels + k] * (n + 1);
        logits[k] = sum / length;
      }
      return [new Tensor(logits, [1, channels])];
    },
  };
}
"""
_LITERT_UTILS = """
export async function createWasmLib(made, script) {
  importScripts(script);
  return new made(await self.ModuleFactory(self.Module));
}
"""
_LITERT_PART = """
var ModuleFactory = async ({ locateFile }) =>
  WebAssembly.compile(await (await fetch(locateFile("litert_wasm_compat_internal.wasm"))).arrayBuffer());
"""


def write_package(folder: Path, name: str, version: str, files: dict[str, str | bytes]) -> Path:
    for path, content in files.items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_bytes(content if isinstance(content, bytes) else content.encode())
    (folder / "package.json").write_text(json.dumps({"name": name, "version": version, "license": "MIT"}))
    return folder


def made_onnxruntime(modules: Path, script: str = _ORT) -> Path:
    files: dict[str, str | bytes] = {
        "dist/ort.wasm.min.mjs": script,
        "dist/ort-wasm-simd-threaded.mjs": _ORT_PART,
        "dist/ort-wasm-simd-threaded.wasm": _PROBE,
        "dist/ort.webgpu.mjs": "not needed",
    }
    return write_package(modules / "onnxruntime-web", "onnxruntime-web", "1.2.3", files)


def made_litert(modules: Path, script: str = _LITERT) -> Path:
    parts = [f"wasm/litert_wasm_{kind}internal" for kind in ("", "compat_", "threaded_")]
    files: dict[str, str | bytes] = {"dist/index.js": script}
    files |= {f"{part}.js": _LITERT_PART for part in parts} | {f"{part}.wasm": _PROBE for part in parts}
    utils: dict[str, str | bytes] = {"dist/index.js": _LITERT_UTILS}
    write_package(modules / "@litertjs/wasm-utils", "@litertjs/wasm-utils", "2.3.5", utils)
    return write_package(modules / "@litertjs/core", "@litertjs/core", "2.3.4", files)
