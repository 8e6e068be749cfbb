import type { Arrays, Provider } from './ort-sessions.ts';
import type { ForwardGraph, GradientGraph, TrainingProgram } from './program.ts';

export interface WorkerStart {
  program: TrainingProgram;
  seed: number;
  numThreads: number;
  provider: Provider;
}

export type WorkerCall =
  | { method: 'ready' | 'state' | 'close' }
  | { method: 'addGradient'; name: string; graph: GradientGraph }
  | { method: 'addForward'; name: string; graph: ForwardGraph }
  | { method: 'step'; name: string; feeds: Arrays; learningRate: number }
  | { method: 'gradients' | 'forward'; name: string; feeds: Arrays }
  | { method: 'restore'; tensors: ReadonlyMap<string, Float32Array>; step: number };

export type WorkerReply =
  | { id: number; ok: true; value: unknown }
  | { id: number; ok: false; name: string; message: string; stack: string | undefined };
