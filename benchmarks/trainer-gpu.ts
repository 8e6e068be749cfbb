/**
 * Training on an accelerator: preset proof83 over 200 steps with each device engine that starts here, its loss curve beside the
 * CPU's, samples/s, and the share of the device's peak, which is measured as matrix products on that engine. Without a device it
 * says so, with the reason of each engine, measures nothing and exits 3.
 */
import { proof83, starters } from '@onemall/learning/bench';
import { versions } from './report/machine.ts';
import type { Bar, Benchmark } from './report/result.ts';
import {
  curveDifference,
  findDevices,
  LARGE,
  matrixPeak,
  startOf,
  stepFlops,
  trainedCurve,
} from './trainer/device-run.ts';

const STEPS = 200;
/** Relative difference of the mean loss over ten steps. */
const MAX_DIFFERENCE = 0.01;

const benchmark: Benchmark = async (print) => {
  const start = startOf(proof83);
  const { working, reasons } = await findDevices(starters, start);
  for (const reason of reasons) print(`no device through ${reason}`);
  const result = {
    name: 'trainer-gpu',
    versions: versions(),
    peer: null,
    peerNote: 'not measured',
    ratios: {},
  };
  if (working.length === 0)
    return {
      ...result,
      ours: { reasons },
      bars: [],
      notMeasured: 'no accelerator: no engine computes on a device here',
    };

  const cpu = await starters.cpu(start);
  const expected = await trainedCurve(cpu, proof83, STEPS);
  await cpu.close();
  const samplesPerS = (stepMs: number): number => (proof83.batchSize / stepMs) * 1000;
  const ours: Record<string, unknown> = { 'cpu samples/s': samplesPerS(expected.stepMs) };
  const bars: Bar[] = [];
  for (const { name, engine } of working) {
    const { losses, stepMs } = await trainedCurve(engine, proof83, STEPS);
    const peak = await matrixPeak(engine, LARGE);
    await engine.close();
    ours[`${name} samples/s`] = samplesPerS(stepMs);
    ours[`${name} peak of matrix products, TFLOP/s`] = peak / 1e12;
    ours[`${name} share of the peak`] = stepFlops(proof83) / (stepMs / 1000) / peak;
    const difference = curveDifference(losses, expected.losses);
    bars.push({
      name: `${name}: loss curve differs from the CPU's by (at most)`,
      value: difference,
      bar: MAX_DIFFERENCE,
      ok: difference <= MAX_DIFFERENCE,
    });
  }
  return { ...result, ours, bars };
};
export default benchmark;
