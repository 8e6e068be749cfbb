/** onnxruntime behind `TrainingEngine`: compiles each pass to a static graph and trains in a worker thread. */
import { hasGraphicsDevice } from './graphics-device.ts';
import { OrtEngine } from './ort-engine.ts';
import type { Provider } from './ort-sessions.ts';
import { compileForward, compileGradient, compileOptimizer } from './program.ts';
import type { EngineStart, TrainingEngine } from './training-engine.ts';

/** @throws Error where the provider's libraries or device are missing */
export async function startOnnxruntime(
  start: EngineStart,
  provider: Provider = 'cpu',
): Promise<TrainingEngine> {
  const { gradient, graph } = compileGradient((ops) => start.pass(ops));
  const program = compileOptimizer(graph, start.adamw, start.rate);
  const engine = await OrtEngine.start(program, start.seed, start.numThreads, provider);
  try {
    await engine.addGradient(start.name, gradient);
  } catch (error) {
    await engine.close();
    throw error;
  }
  return {
    description: `onnxruntime, provider ${provider}, ${start.numThreads} thread(s)`,
    onDevice: provider === 'cuda' || (provider === 'webgpu' && hasGraphicsDevice()),
    addPass: (name, pass) => engine.addGradient(name, compileGradient((ops) => pass(ops)).gradient),
    addForward: (name, build) =>
      engine.addForward(
        name,
        compileForward((ops) => build(ops)),
      ),
    step: (name, feeds, learningRate) => engine.step(name, feeds, learningRate),
    gradients: (name, feeds) => engine.gradients(name, feeds),
    forward: (name, feeds) => engine.forward(name, feeds),
    state: () => engine.state(),
    restore: (tensors, step) => engine.restore(tensors, step),
    close: () => engine.close(),
  };
}
