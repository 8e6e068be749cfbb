/**
 * Which engine trains, decided once at the start: what the configuration names, else the first that works of TensorFlow on a
 * GPU, onnxruntime with CUDA, onnxruntime with WebGPU, onnxruntime on the CPU, TensorFlow.js in WebAssembly.
 */
import { loadNativeTensorflow, loadTfjs, tensorflowFolder } from '../tensorflow/load-tensorflow.ts';
import { startTensorflow } from '../tensorflow/tensorflow-engine.ts';
import { type EngineName, type EngineOptions, engineNames, type PassedOver } from '../trainer-ports.ts';
import { startOnnxruntime } from './onnxruntime.ts';
import type { EngineStart, TrainingEngine } from './training-engine.ts';

export interface EngineChoice {
  name: EngineName;
  engine: TrainingEngine;
  /** Of every engine that comes before it in the order, why it was not taken. */
  passedOver: PassedOver[];
}
/** Starts one engine. @throws Error with the reason where it cannot run here */
export type Starter = (start: EngineStart) => Promise<TrainingEngine>;

export const starters: Readonly<Record<EngineName, Starter>> = {
  tensorflow: async (start) => startTensorflow(await loadNativeTensorflow(tensorflowFolder()), start),
  cuda: (start) => startOnnxruntime(start, 'cuda'),
  webgpu: (start) => startOnnxruntime(start, 'webgpu'),
  cpu: (start) => startOnnxruntime(start, 'cpu'),
  wasm: async (start) => startTensorflow(await loadTfjs('wasm'), start),
};

/** Not named by the configuration, TensorFlow and WebGPU are taken only with a GPU: on a CPU onnxruntime's own kernels are faster. */
export const automatic: Readonly<Record<EngineName, Starter>> = {
  ...starters,
  tensorflow: async (start) => {
    const tf = await loadNativeTensorflow(tensorflowFolder());
    if (!tf.usesGpu) throw new Error('TensorFlow loads but sees no GPU; name it to train with it on the CPU');
    return startTensorflow(tf, start);
  },
  webgpu: async (start) => {
    const engine = await starters.webgpu(start);
    if (engine.onDevice) return engine;
    await engine.close();
    throw new Error('WebGPU starts, but no graphics device is there; name it to train with it on the CPU');
  },
};

/**
 * @param named by the configuration: this one or none
 * @throws Error where the named engine, or every engine, cannot run; it says why for each
 */
export async function chooseEngine(
  start: EngineStart,
  named: EngineName | undefined,
  available: Readonly<Record<EngineName, Starter>> = named === undefined ? automatic : starters,
): Promise<EngineChoice> {
  const passedOver: EngineChoice['passedOver'] = [];
  for (const name of named === undefined ? engineNames : [named])
    try {
      return { name, engine: await available[name](start), passedOver };
    } catch (error) {
      passedOver.push({ name, reason: (error as Error).message });
    }
  const reasons = passedOver.map(({ name, reason }) => `${name}: ${reason}`).join('; ');
  throw new Error(`No training engine works here. ${reasons}`);
}

/** The engine of a trainer's options. */
export async function startConfiguredEngine(
  start: Omit<EngineStart, 'numThreads'>,
  { name = 'cpu', intraOpNumThreads = 1, onChosen }: EngineOptions = {},
): Promise<TrainingEngine> {
  const choice = await chooseEngine(
    { ...start, numThreads: intraOpNumThreads },
    name === 'auto' ? undefined : name,
  );
  const { engine, passedOver } = choice;
  onChosen?.({ name: choice.name, description: engine.description, passedOver });
  return engine;
}
