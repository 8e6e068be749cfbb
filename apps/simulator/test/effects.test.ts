/** Each effect shows while on and collapses while off. */
import assert from 'node:assert/strict';
import { test } from 'node:test';
import type { WorldOptions } from '../src/world/spec.ts';
import type { RequestTruth, World } from '../src/world/world.ts';
import { ofTopic, SETTINGS, smallWorld, take } from './small-world.ts';

const correlation = (pairs: readonly (readonly [number, number])[]): number => {
  const n = pairs.length;
  const mean = (k: 0 | 1): number => pairs.reduce((s, p) => s + p[k], 0) / n;
  const [ma, mb] = [mean(0), mean(1)];
  let ab = 0;
  let aa = 0;
  let bb = 0;
  for (const [a, b] of pairs) {
    ab += (a - ma) * (b - mb);
    aa += (a - ma) ** 2;
    bb += (b - mb) ** 2;
  }
  return aa === 0 || bb === 0 ? 0 : ab / Math.sqrt(aa * bb);
};

/** (score of the exposed item, clicked) over the traffic of a world. */
function clicksBy(world: World, score: (itemId: string, truth: RequestTruth) => number | null) {
  const truths = new Map<string, RequestTruth>();
  world.onRequest = (t) => truths.set(t.requestId, t);
  const records = take(world, 30_000);
  const clicked = new Set(ofTopic(records, 'clicks').map((c) => c.exposureId));
  const pairs: [number, number][] = [];
  for (const e of ofTopic(records, 'exposures')) {
    const s = score(e.itemId, truths.get(e.requestId)!);
    if (s !== null) pairs.push([s, clicked.has(e.exposureId) ? 1 : 0]);
  }
  return pairs;
}
const cosine = (a: ArrayLike<number>, b: ArrayLike<number>): number => {
  let sum = 0;
  for (let d = 0; d < a.length; d++) sum += a[d]! * b[d]!;
  return sum;
};
const withOption = (off: keyof WorldOptions): [World, World] => [smallWorld(), smallWorld({ [off]: false })];

test('taste: clicks follow what the user wants', () => {
  const [on, off] = withOption('taste').map((world) =>
    correlation(
      clicksBy(world, (itemId, t) => {
        const index = world.catalogue.indexOf(itemId);
        return index < 0 ? null : cosine(t.want, world.catalogue.latentOf(index));
      }),
    ),
  );
  assert.ok(on! > 0.3, `on ${on}`);
  assert.ok(Math.abs(off!) < 0.05, `off ${off}`);
});

test('quality and prices move clicks while they are on', () => {
  const quality = (world: World) =>
    correlation(
      clicksBy(world, (id) => {
        const index = world.catalogue.indexOf(id);
        // the draw itself, also where quality is off: rebuilt from a world that has it
        return index < 0 ? null : reference.catalogue.clickQuality[index]!;
      }),
    );
  const price = (world: World) =>
    correlation(
      clicksBy(world, (id) => {
        const index = world.catalogue.indexOf(id);
        return index < 0 || world.catalogue.isContent(index) ? null : world.catalogue.relativePrice[index]!;
      }),
    );
  const reference = smallWorld();
  const [qualityOn, qualityOff] = withOption('quality').map(quality);
  assert.ok(qualityOn! > 0.08, `${qualityOn}`);
  assert.ok(qualityOff! < qualityOn! / 2, `${qualityOff} against ${qualityOn}`);
  const [priceOn, priceOff] = withOption('priceSensitivity').map(price);
  assert.ok(priceOn! < -0.03 && priceOff! > priceOn! / 2, `${priceOff} against ${priceOn}`);
});

test('users differ in how much prices move them, and not when off', () => {
  // the slope of the true log-odds of a click over the relative price, by user
  const slopes = (world: World): number[] =>
    [...Array(20).keys()].map((u) => {
      const user = world.users.at(u);
      const ids = [...Array(100).keys()].map((i) => `p${i}`);
      const scores = world.trueScores(user.id, ids, new Float32Array(world.spec.latentDim));
      const points = scores.map((s, i) => [
        world.catalogue.relativePrice[i]!,
        Math.log(s!.pCtr / (1 - s!.pCtr)) - world.spec.click.quality * world.catalogue.clickQuality[i]!,
      ]) as [number, number][];
      const of = (k: 0 | 1) => points.reduce((sum, p) => sum + p[k], 0) / points.length;
      const [mx, my] = [of(0), of(1)];
      return (
        points.reduce((sum, [x, y]) => sum + (x - mx) * (y - my), 0) /
        points.reduce((sum, [x]) => sum + (x - mx) ** 2, 0)
      );
    });
  const [on, off] = withOption('priceSensitivity').map(slopes);
  on!.forEach((slope, u) => {
    const { spec, users } = smallWorld();
    assert.ok(Math.abs(slope + spec.click.price * users.at(u).priceSensitivity) < 1e-6);
  });
  assert.ok(Math.max(...on!) / Math.min(...on!) < 0.5, 'the most sensitive is moved at least twice as much');
  assert.ok(off!.every((slope) => Math.abs(slope) < 1e-9));
});

test('position: the top of the page is clicked more', () => {
  const clickRates = (world: World): [top: number, bottom: number] => {
    const records = take(world, 30_000);
    const clicked = new Set(ofTopic(records, 'clicks').map((c) => c.exposureId));
    const rate = (position: number): number => {
      const at = ofTopic(records, 'exposures').filter((e) => e.position === position);
      return at.filter((e) => clicked.has(e.exposureId)).length / at.length;
    };
    return [rate(0), rate(5)];
  };
  const [on, off] = withOption('positionBias').map(clickRates);
  assert.ok(on![0] > 1.3 * on![1], `${on}`);
  assert.ok(off![0] < 1.15 * off![1], `${off}`);
});

test('near-duplicates share their text and embedding, not price, shop and quality', () => {
  const [on, off] = withOption('nearDuplicates');
  const texts = (world: World) => {
    const byText = new Map<string, { index: number; embedding: string }[]>();
    for (const item of world.items(0)) {
      if (item.scenario !== 'product_card') continue;
      const list = byText.get(item.title + item.tags) ?? [];
      list.push({ index: world.catalogue.indexOf(item.itemId), embedding: String(item.embedding) });
      byText.set(item.title + item.tags, list);
    }
    return [...byText.values()].filter((l) => l.length > 1 && new Set(l.map((i) => i.embedding)).size === 1);
  };
  const families = texts(on!);
  const members = families.reduce((s, f) => s + f.length, 0);
  assert.ok(members > 0.2 * 300 && members < 0.42 * 300, `${members} of 300 in families of share 0.3`);
  for (const family of families) {
    const prices = new Set(family.map((m) => on!.catalogue.priceCents[m.index]));
    const qualities = new Set(family.map((m) => on!.catalogue.clickQuality[m.index]));
    assert.equal(prices.size, family.length);
    assert.equal(qualities.size, family.length);
  }
  assert.equal(texts(off!).length, 0);
});

test('long memory: users come back to intents of 200 to 1,000 events ago', () => {
  const returns = (world: World): { count: number; changes: number } => {
    const last = new Map<string, Float32Array>();
    const ended = new Map<Float32Array, number>();
    let count = 0;
    let changes = 0;
    world.onRequest = ({ userId }) => {
      const user = world.users.byId(userId);
      const before = last.get(userId);
      if (before && before !== user.intent.point) {
        changes++;
        const at = ended.get(user.intent.point);
        if (at !== undefined) {
          count++;
          const age = user.events - at;
          assert.ok(age >= 200 && age <= 1_000, `came back after ${age} events`);
        }
        ended.set(before, user.events);
      }
      last.set(userId, user.intent.point);
    };
    take(world, 60_000);
    return { count, changes };
  };
  const on = returns(smallWorld({}, {}, { users: 20 }));
  assert.ok(on.count / on.changes > 0.2, `${on.count} of ${on.changes}`);
  assert.equal(returns(smallWorld({ longMemory: false }, {}, { users: 20 })).count, 0);
});

test('short-term intent: what a user wants changes, and is the taste alone when off', () => {
  const [on, off] = withOption('shortTermIntent').map((world) => {
    const wants = new Set<string>();
    world.onRequest = ({ userId, want }) => userId === 'u0' && wants.add(want.join());
    take(world, 30_000);
    return { wants: wants.size, toTaste: cosine(world.users.at(0).taste, world.users.at(0).want) };
  });
  assert.ok(on!.wants > 3);
  assert.equal(off!.wants, 1);
  assert.ok(off!.toTaste > 0.999);
});

test('click and buy propensities are weakly correlated, or one when off', () => {
  const [on, off] = withOption('weakCorrelation').map(({ catalogue }) =>
    correlation([...catalogue.clickQuality].map((q, i) => [q, catalogue.buyQuality[i]!] as const)),
  );
  assert.ok(on! > 0.05 && on! < 0.4, `${on}`);
  assert.ok(off! > 0.999, `${off}`);
});

test('embeddings are a noisy picture of the latent vector: distances agree, exactly when the noise is off', () => {
  const agreement = (world: World): number => {
    const items = [...world.items(0)].slice(0, 200);
    const norm = (v: readonly number[]): number => Math.sqrt(cosine(v, v));
    return correlation(
      items.slice(1).map((item, i) => {
        const before = items[i]!;
        const [a, b] = [item.embedding!, before.embedding!];
        const index = world.catalogue.indexOf(item.itemId);
        const other = world.catalogue.indexOf(before.itemId);
        return [
          cosine(a, b) / norm(a) / norm(b),
          cosine(world.catalogue.latentOf(index), world.catalogue.latentOf(other)),
        ] as const;
      }),
    );
  };
  const noisy = { embeddingNoise: 0.3 };
  const on = agreement(smallWorld({}, {}, noisy));
  const off = agreement(smallWorld({ noisyText: false }, {}, noisy));
  assert.ok(on > 0 && on < off && off > 0.7, `${on} against ${off}`);
});

test('rooms match what they sell now, or what they first sold when off', () => {
  for (const world of withOption('roomsFollowProducts')) {
    world.openRooms(SETTINGS.startMs);
    const first = world.rooms.latent.slice();
    take(world, 10_000);
    const follows = world.spec.options.roomsFollowProducts;
    // rooms that ended have a new match in both worlds
    const old = world.rooms.open.filter((r) => Number(r.liveId.split('-').at(-1)) < 10);
    assert.ok(old.length > 2);
    const dim = world.spec.latentDim;
    const changed = old.filter(({ row }) =>
      world.rooms.latent.subarray(row * dim, (row + 1) * dim).some((x, d) => x !== first[row * dim + d]),
    );
    assert.equal(changed.length, follows ? old.length : 0);
  }
});

test('the oracle ranks what users click above what they leave', () => {
  const world = smallWorld();
  const pairs = clicksBy(world, (itemId, t) => world.trueScores(t.userId, [itemId], t.want)[0]?.pCtr ?? null);
  assert.ok(correlation(pairs) > 0.35);
  const [card, none] = world.trueScores('u1', ['p1', 'p99999'], world.wantOf('u1'));
  assert.ok(card!.pCtr > 0 && card!.pCtr < 1 && card!.expectedValueCents >= 0);
  assert.equal(none, null);
  assert.throws(() => world.trueScores('x9', ['p1'], world.wantOf('u1')), /No user x9/);
});
