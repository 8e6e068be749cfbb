/** For packages that write WebAssembly kernels of their own. Import it as @onemall/learning/wasm. */
export { type Place, WasmArrays } from './optimizers/wasm-arrays.ts';
export { Code, type WasmFunction, wasmModule } from './optimizers/wasm-module.ts';
