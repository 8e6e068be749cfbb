/** Base, DPO or GRPO: goes on from the base checkpoint, with reward groups in each step for the two that have rewards. */
import {
  loadPolicy,
  type PolicyRuntime,
  type RetrievalSample,
  type RewardGroup,
  retrievalPresets,
} from '@onemall/learning';
import { SeededRandom } from '@onemall/service-kit';
import { OneMallLists } from '../lists/onemall-lists.ts';
import { SCENARIOS } from '../log/world-log.ts';
import { passOrder } from '../samples/sample-encoder.ts';
import { CODEBOOK_VERSION } from '../samples/semantic-ids.ts';
import { type Arm, DPO_NEGATIVES, rewardGroup, rlRequests, type Study } from './reward-groups.ts';
import { oneMallRun, openTrainer } from './train-onemall.ts';

/** Learning rate of the arms, as a share of the preset's. */
const ARM_RATE = 0.2;

/** Goes on from the base checkpoint; reward groups in each step for the arms with rewards. */
export async function trainArm(study: Study, arm: Arm, base: PolicyRuntime): Promise<PolicyRuntime> {
  const { log, run, sids, store, positives, encoder } = study;
  const name = `rl-${arm}/policy`;
  const done = await store.files(name);
  if (done) return loadPolicy(done);
  const model = oneMallRun(run, positives);
  const candidatesPerGroup = arm === 'grpo' ? run.groupCandidates : 1 + DPO_NEGATIVES;
  // L_RL is the mean over the groups of a step: each step has its share of rollouts, known before
  const fraction = run.groupsPerStep / (model.options.batchSize ?? retrievalPresets[run.preset].batchSize);
  const rl =
    arm === 'base' ? {} : { rl: { form: arm, maxGroups: run.groupsPerStep, candidatesPerGroup, fraction } };
  // the base training ended at a small rate; the arms go on at one of their own, the same for all
  const optimizer = { learningRate: ARM_RATE * retrievalPresets[run.preset].learningRate };
  const { trainer } = await openTrainer(
    { ...model, options: { ...model.options, ...rl, optimizer } },
    sids,
    store,
  );
  const publish = (version: string) =>
    trainer.exportPolicy({
      policyVersion: version,
      codebookVersions: Object.fromEntries(SCENARIOS.map((s) => [s, CODEBOOK_VERSION])),
      beamWidths: [64, 512],
      normalizer: model.normalizer,
      trieVersion: sids.trieVersion,
    });
  let reference = base;
  try {
    const requests = arm === 'base' ? [] : rlRequests(study, run.rlSteps * run.groupsPerStep);
    const random = new SeededRandom(run.seed);
    const newest = Math.max(0, positives.length - run.rlSteps * trainer.batchSize);
    const rows = passOrder(log, positives.subarray(newest));
    encoder.startPass();
    let taken = 0;
    const sums = { groups: 0, reward: 0, kl: 0, skipped: 0, firstLogRatio: 0 };
    for (let step = 0; step < run.rlSteps && taken < rows.length; step++) {
      const samples: RetrievalSample[] = [];
      while (samples.length < trainer.batchSize && taken < rows.length) {
        const sample = encoder.positive(rows[taken++]!);
        if (sample) samples.push(sample);
      }
      const lists = new OneMallLists(arm, log, sids, study.shelf, reference, model.normalizer);
      const groups: RewardGroup[] = [];
      for (const request of requests.slice(step * run.groupsPerStep, (step + 1) * run.groupsPerStep)) {
        const group = await rewardGroup(study, lists, request, arm, random);
        if (!group) {
          sums.skipped++;
          continue;
        }
        groups.push(group);
        sums.reward += group.rewardMean;
      }
      sums.groups += groups.length;
      const { rl: figures } = await trainer.step({ samples, groups }, { rlWeight: run.rlWeight });
      sums.kl += figures?.kl ?? 0;
      // the reference is the policy itself at the first step: whatever differs here is an error of the engines
      if (figures && sums.groups === groups.length) sums.firstLogRatio = figures.maxAbsLogRatio;
      if ((step + 1) % run.syncSteps !== 0) continue;
      run.print(`${arm} step ${step + 1}: ${JSON.stringify(sums)}`);
      if (arm === 'base') continue;
      if (reference !== base) await reference.close();
      reference = await loadPolicy(await publish(`${arm}-${step + 1}`));
    }
    const files = await publish(arm);
    await store.setFiles(name, files, sums);
    return await loadPolicy(files);
  } finally {
    if (reference !== base) await reference.close();
    await trainer.close();
  }
}
