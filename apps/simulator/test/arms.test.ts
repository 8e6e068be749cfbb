/** The closed loop: policies answer a share of the requests. */
import assert from 'node:assert/strict';
import { createServer } from 'node:http';
import type { AddressInfo } from 'node:net';
import { test } from 'node:test';
import { pino } from 'pino';
import { PoliciesUnderTest } from '../src/adapters/policies-under-test.ts';
import { simulatorConfig } from '../src/config.ts';
import { type Ask, armOf } from '../src/world/arms.ts';
import type { World, WorldRecord } from '../src/world/world.ts';
import { ofTopic, SETTINGS, smallWorld } from './small-world.ts';

const ARMS = [
  { name: 'base', share: 0.2 },
  { name: 'grpo', share: 0.3 },
];

/** Takes records, answering asks. */
function play(world: World, count: number, answer: (ask: Ask) => string[]): WorldRecord[] {
  world.openRooms(SETTINGS.startMs);
  const records: WorldRecord[] = [];
  while (records.length < count) {
    const ask = world.asks();
    if (ask) world.answer(answer(ask));
    else records.push(world.next());
  }
  return records;
}

test('a request is in an arm by its id, arms get their shares, and an answer is what is shown', () => {
  const world = smallWorld({}, { arms: ARMS });
  const cards = ['p3', 'p1', 'p3', 'v2', 'p9999', 'live-x-1', 'p7'];
  const asked = new Map<string, number>();
  const records = play(world, 20_000, ({ scenario, arm }) => {
    asked.set(arm, (asked.get(arm) ?? 0) + 1);
    return scenario === 'product_card' ? cards : scenario === 'short_video' ? ['v0', 'v5'] : [];
  });
  const exposures = ofTopic(records, 'exposures');
  const pages = new Map<string, string[]>();
  for (const e of exposures) pages.set(e.requestId, [...(pages.get(e.requestId) ?? []), e.itemId]);
  const complete = [...pages].slice(0, -1);
  for (const [id, page] of complete) {
    const [plain, arm] = id.split('@') as [string, string | undefined];
    // rooms were never answered, so their requests fell to the logging policy and bear no tag
    const expected = armOf(plain, ARMS);
    if (arm) {
      assert.equal(arm, expected);
      assert.ok(['p3,p1,p7', 'v0,v5'].includes(page.join()), page.join());
    } else if (expected) assert.ok(page[0]!.startsWith('live-'), page.join());
  }
  const requests = world.counts.requests;
  for (const { name, share } of ARMS)
    assert.ok(
      Math.abs(asked.get(name)! / requests - share) < 0.05,
      `${name}: ${asked.get(name)} of ${requests}`,
    );
});

test('before and after its span the logging policy serves alone, and asks nobody', () => {
  const world = smallWorld({}, { arms: [{ name: 'all', share: 1 }], armRequests: { from: 50, until: 80 } });
  const asked: string[] = [];
  const records = play(world, 4_000, ({ requestId }) => {
    asked.push(requestId);
    return ['p1', 'v1'];
  });
  assert.ok(world.counts.requests > 200);
  assert.deepEqual(
    asked.map((id) => Number(id.split('-')[1])),
    Array.from({ length: 30 }, (_, i) => 50 + i),
  );
  assert.ok(ofTopic(records, 'exposures').some((e) => e.requestId.endsWith('@all')));
});

test('asking twice asks the same; a record, an answer too many or a request in between is refused', () => {
  const world = smallWorld({}, { arms: [{ name: 'all', share: 1 }] });
  assert.deepEqual(world.asks(), world.asks());
  assert.equal(world.asks()!.requestTimeMs, Math.round(world.nextAtMs()));
  assert.throws(() => world.next(), /waits for an answer/);
  world.answer([]);
  assert.equal(world.next().topic, 'exposures');
  assert.throws(() => smallWorld().answer(['p1']), /No request waits/);
});

test('a policy gets the history before its request, without copies; one that fails leaves the page to the logging policy', async () => {
  const bodies: Record<string, unknown>[] = [];
  let status = 200;
  const server = createServer((request, response) => {
    let text = '';
    request.on('data', (chunk) => {
      text += String(chunk);
    });
    request.on('end', () => {
      bodies.push(JSON.parse(text) as Record<string, unknown>);
      response.writeHead(status, { 'content-type': 'application/json' });
      response.end(JSON.stringify({ items: [{ itemId: 'p5' }, { itemId: 'p6' }] }));
    });
  });
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve));
  const url = `http://127.0.0.1:${(server.address() as AddressInfo).port}/retrieve`;
  const world = smallWorld();
  const policies = new PoliciesUnderTest({
    catalogue: world.catalogue,
    urls: new Map([['base', url]]),
    historyLength: 2,
    timeoutMs: 30_000,
    log: pino({ level: 'silent' }),
  });
  const exposure = (itemId: string, eventTimeMs: number): WorldRecord =>
    ({ topic: 'exposures', key: 'u1', value: { userId: 'u1', itemId, eventTimeMs } }) as WorldRecord;
  for (const [itemId, ms] of [
    ['p1', 10],
    ['p2', 30],
    ['p1', 10],
    ['p4', 20],
    ['v1', 50],
  ] as const)
    policies.follow(exposure(itemId, ms));
  const ask = {
    arm: 'base',
    requestId: 'r1',
    userId: 'u1',
    scenario: 'product_card',
    requestTimeMs: 50,
  } as const;
  try {
    assert.deepEqual(await policies.itemsFor(ask, 6), ['p5', 'p6']);
    const { category } = world.catalogue.facts(2);
    assert.deepEqual(bodies[0], {
      scenario: 'product_card',
      userId: 'u1',
      requestTimeMs: 50,
      history: { exposures: [{ itemId: 'p2', eventTimeMs: 30, category }], clicks: [], buys: [] },
      k: 6,
    });
    status = 503;
    assert.deepEqual(await policies.itemsFor(ask, 6), []);
  } finally {
    await new Promise((resolve) => server.close(resolve));
  }
  assert.deepEqual(await policies.itemsFor(ask, 6), [], 'a retriever that is away');
});

test('arms come from the settings, and wrong ones are refused with the reason', () => {
  const config = (arms: unknown) => simulatorConfig({ ONEMALL_SIMULATOR_ARMS: JSON.stringify(arms) });
  const arm = { name: 'base', url: 'http://127.0.0.1:8600/retrieve', share: 0.5 };
  assert.deepEqual(config([arm]).simulatorArms, [arm]);
  assert.deepEqual(simulatorConfig({}).simulatorArms, []);
  assert.throws(() => config([arm, { ...arm, name: 'grpo', share: 0.6 }]), /more than 1/);
  assert.throws(() => config([arm, arm]), /named twice/);
  assert.throws(() => config([{ ...arm, name: 'a@b' }]), /small letters/);
  assert.throws(() => simulatorConfig({ ONEMALL_SIMULATOR_ARMS: '[{' }), /JSON/i);
});
