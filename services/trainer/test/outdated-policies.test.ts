import assert from 'node:assert/strict';
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import type { KafkaIo, OutRecord, TransactionalWriter } from '@onemall/kafka-io';
import { createLogger, FolderArtifactStore, ManualClock } from '@onemall/service-kit';
import fc from 'fast-check';
import { PolicyPublisher } from '../src/adapters/policy-publisher.ts';
import { outdatedPolicies } from '../src/stages/outdated-policies.ts';

const uriOf = (step: number, hash = 'ab') => `policies/ranker/${String(step).padStart(10, '0')}-${hash}`;
const steps = (uris: readonly string[]) => uris.map((uri) => Number(/(\d{10})/.exec(uri)![1]));

test('while steps only grow, the newest stay', () => {
  const uris = [10, 20, 30, 40].map((step) => uriOf(step));
  assert.deepEqual(steps(outdatedPolicies(uris, uriOf(40), 2)).sort(), [10, 20]);
  assert.deepEqual(outdatedPolicies(uris, uriOf(40), 4), []);
});

test('after a beginning anew the given-up past goes first, and never what was just published', () => {
  const past = [900, 950, 1_000].map((step) => uriOf(step));
  assert.deepEqual(steps(outdatedPolicies([...past, uriOf(10)], uriOf(10), 3)), [1_000]);
  assert.deepEqual(steps(outdatedPolicies([...past, uriOf(10), uriOf(20)], uriOf(20), 3)), [950, 1_000]);
  assert.deepEqual(steps(outdatedPolicies([...past, uriOf(10)], uriOf(10), 1)).length, 3);
  const sameStep = [uriOf(5), uriOf(10, 'aa'), uriOf(10, 'bb')];
  assert.deepEqual(outdatedPolicies(sameStep, uriOf(10, 'aa'), 2), [uriOf(10, 'bb')]);
});

test('other names are left alone', () => {
  const uris = ['policies/ranker/backup', uriOf(10), uriOf(20)];
  assert.deepEqual(outdatedPolicies(uris, uriOf(20), 1), [uriOf(10)]);
});

test('as many stay as are kept, the published one among them, and older ones before the given-up past', () => {
  fc.assert(
    fc.property(
      fc.uniqueArray(fc.nat(100), { minLength: 1, maxLength: 12 }),
      fc.nat(),
      fc.integer({ min: 1, max: 6 }),
      (all, pick, keep) => {
        const now = all[pick % all.length]!;
        const uris = all.map((step) => uriOf(step)).sort();
        const gone = new Set(outdatedPolicies(uris, uriOf(now), keep));
        assert.ok(!gone.has(uriOf(now)));
        assert.equal(uris.length - gone.size, Math.min(keep, uris.length));
        const [stay, go] = [uris.filter((u) => !gone.has(u)), [...gone]];
        if (stay.some((u) => u > uriOf(now))) assert.ok(go.every((u) => u > uriOf(now)));
      },
    ),
    { seed: 31 },
  );
});

test('the publisher keeps the files that its newest pointer names, although training began anew', async (t) => {
  const root = await mkdtemp(path.join(tmpdir(), 'onemall-policies-'));
  t.after(() => rm(root, { recursive: true, force: true }));
  const artifacts = new FolderArtifactStore(root);
  const records: OutRecord[] = [];
  const writer: TransactionalWriter = {
    init: async () => {},
    commit: async (transaction) => void records.push(...(transaction.records as OutRecord[])),
    close: async () => {},
  };
  const io = {
    options: { namespace: 'ns' },
    openTransactionalWriter: async () => writer,
  } as unknown as KafkaIo;
  const learner = { kind: 'RANKER', model: 'ranker', codebookVersions: {} } as const;
  const publisher = await PolicyPublisher.open(
    {
      ...{ io, artifacts, clock: new ManualClock(1), log: createLogger('trainer', 'silent'), keep: 2 },
      stopping: new AbortController().signal,
    },
    'ranker',
  );
  const publish = (step: number) => {
    const checkpoint = { step, uri: 'c', sha256: String(step % 9).repeat(64) };
    const files = new Map([['model.bin', Buffer.from(publisher.versionOf(checkpoint))]]);
    return publisher.publish(learner, files, checkpoint, {});
  };
  for (const step of [800, 900, 1_000, 50, 100, 150]) {
    const version = await publish(step);
    const { uri, sha256 } = records.at(-1)!.value as { uri: string; sha256: string };
    const files = await artifacts.get({ uri, sha256 });
    assert.equal(files.get('model.bin')!.toString(), version);
  }
  assert.deepEqual(steps(await artifacts.list('policies/ranker')), [100, 150]);
});
