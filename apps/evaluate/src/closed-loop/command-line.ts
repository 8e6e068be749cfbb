/** `evaluate -- closed-loop`: two policies of a finished `evaluate -- rl` answer a share of the simulator's requests. */
import { parseArgs } from 'node:util';
import { planNames, readEvaluationPlan } from '../world/log/plan.ts';
import { type ClosedLoop, runClosedLoop } from './run-loop.ts';

const USAGE = `usage: closed-loop --folder FOLDER-OF-A-FINISHED-RL-RUN [--plan NAME] [--arms base,grpo] [--requests N] [--share S] [--warm-up N] [--beam N] [--out FOLDER]`;

/** @returns the report in Markdown @throws Error naming what is wrong with the arguments */
export function closedLoop(args: readonly string[]): Promise<string> {
  const { values } = parseArgs({
    args: [...args],
    options: {
      folder: { type: 'string', default: '.data/evaluate/world' },
      plan: { type: 'string', default: 'evaluation' },
      arms: { type: 'string', default: 'base,grpo' },
      requests: { type: 'string', default: '20000' },
      share: { type: 'string', default: '0.25' },
      'warm-up': { type: 'string', default: '20000' },
      beam: { type: 'string', default: '64' },
      out: { type: 'string' },
    },
  });
  const count = (name: keyof typeof values): number => {
    const n = Number(values[name]);
    if (!Number.isInteger(n) || n < 0)
      throw new Error(`--${name} takes a whole number, got ${values[name]}\n${USAGE}`);
    return n;
  };
  const plan = planNames.find((name) => name === values.plan);
  if (!plan) throw new Error(`No plan ${values.plan}: there are ${planNames.join(', ')}`);
  const arms = values.arms.split(',');
  if (arms[0] !== 'base' || arms.length < 2 || new Set(arms).size < arms.length)
    throw new Error(`--arms takes base and one or more of dpo, grpo; got ${values.arms}\n${USAGE}`);
  const share = Number(values.share);
  if (!(share > 0 && share * arms.length <= 1))
    throw new Error(
      `--share is of each of ${arms.length} arms, together 1 at most; got ${values.share}\n${USAGE}`,
    );
  const loop: ClosedLoop = {
    plan: readEvaluationPlan(plan),
    runFolder: values.folder,
    out: values.out ?? `${values.folder}/closed-loop`,
    arms,
    requests: count('requests'),
    share,
    warmUp: count('warm-up'),
    beam: count('beam'),
    print: (line) => console.error(`${new Date().toISOString().slice(11, 19)} ${line}`),
  };
  return runClosedLoop(loop);
}
