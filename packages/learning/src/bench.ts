/** What benchmarks measure below the surface of the trainers. */
export { starters } from './engine/choose-engine.ts';
export { OrtEngine } from './engine/ort-engine.ts';
export { OrtSessions } from './engine/ort-sessions.ts';
export { compileGradient, compileOptimizer } from './engine/program.ts';
export type { EngineStart, TrainingEngine } from './engine/training-engine.ts';
export { CountingOps } from './models/count-operations.ts';
export { type Proof83Sizes, proof83, proof83Inputs, proof83Loss } from './models/proof83.ts';
export type { EngineName } from './trainer-ports.ts';
