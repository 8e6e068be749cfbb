/** Cold histories on disk against a map of what was put there, and users against users that never leave memory. */
import assert from 'node:assert/strict';
import {
  closeSync,
  existsSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readlinkSync,
  readSync,
  rmSync,
  writeSync,
} from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { SeededRandom } from '@onemall/service-kit';
import fc from 'fast-check';
import { HistoryDisk } from '../src/adapters/history-disk.ts';
import { BlockArena } from '../src/bytes/block-arena.ts';
import { hashBytes } from '../src/bytes/hash.ts';
import { Sections } from '../src/bytes/sections.ts';
import { ColdHistoriesError, type ColdOwners } from '../src/state/cold-histories.ts';
import { HISTORY_KINDS, Users } from '../src/state/users.ts';

const SEGMENT_BYTES = 500;

/** Open files of a folder, named or not. */
const openIn = (folder: string): string[] => readdirSync('/proc/self/fd').filter((fd) => isIn(folder, fd));
function isIn(folder: string, fd: string): boolean {
  try {
    return readlinkSync(`/proc/self/fd/${fd}`).startsWith(folder);
  } catch {
    return false;
  }
}

test('records keep their bytes while others come, go and move, and about half of the disk is alive', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-disk-'));
  let moves = 0;
  for (let seed = 1; seed <= 20; seed++) {
    const random = new SeededRandom(seed);
    const held = new Map<number, { position: number; bytes: Buffer }>();
    const owners: ColdOwners = {
      positionOf: (owner) => held.get(owner)?.position ?? -1,
      moved: (owner, position) => {
        moves++;
        held.get(owner)!.position = position;
      },
    };
    let disk = new HistoryDisk(folder, SEGMENT_BYTES);
    disk.owners = owners;
    for (let step = 1; step <= 1_500; step++) {
      const owner = random.int(80);
      const old = held.get(owner);
      if (old) {
        held.delete(owner);
        disk.free(old.position, old.bytes.length);
      }
      if (random.next() < 0.1) continue;
      const bytes = Buffer.alloc(random.next() < 0.005 ? 900 : random.int(40), step);
      held.set(owner, { position: disk.put(owner, bytes), bytes });
      if (seed % 2 === 0 && step % 2 === 0) {
        disk.mergeSmall();
        disk.seal();
      }
      if (step % 400 > 0) continue;
      disk = moved(disk, folder);
      disk.owners = owners;
    }
    let liveBytes = 0;
    for (const { position, bytes } of held.values()) {
      assert.ok(bytes.equals(disk.read(position, bytes.length)));
      liveBytes += bytes.length + 12;
    }
    assert.ok(disk.sizeBytes <= 2 * liveBytes + 8 * SEGMENT_BYTES, `${disk.sizeBytes} for ${liveBytes}`);
    assert.deepEqual(readdirSync(folder), [], 'no file has a name: nothing outlives the process');
    disk.close();
    if (existsSync('/proc/self/fd')) assert.deepEqual(openIn(folder), []);
  }
  assert.ok(moves > 1_000, `${moves} records moved`);
  rmSync(folder, { recursive: true });
});

/** The same records on another disk, as a snapshot brings them. */
function moved(disk: HistoryDisk, folder: string): HistoryDisk {
  disk.seal();
  const saved = disk.save();
  const next = new HistoryDisk(folder, SEGMENT_BYTES);
  for (const segment of saved.segments) next.restore(segment, disk.segmentBytes(segment.number));
  next.goOnAt(saved.nextNumber);
  disk.close();
  return next;
}

const entryOf = (id: string, timeMs: number) => {
  const bytes = Buffer.from(`${id}other-item`);
  return {
    ...{ timeMs, bytes, idAt: 0, idLength: id.length, otherAt: id.length, otherLength: 6 },
    ...{ itemAt: id.length + 6, itemLength: 4, itemHash: hashBytes(bytes, id.length + 6, 4) },
  };
};

function everythingOf(users: Users, user: number): string {
  users.warm(user);
  const { lists } = users;
  return HISTORY_KINDS.map((kind) => {
    lists.open(users.columns.of[kind][user]!);
    return Array.from({ length: lists.count }, (_, i) => {
      const entry = lists.entry(i);
      const text = Buffer.from(
        lists.bytes.subarray(lists.idAt(entry), lists.itemAt(entry) + lists.itemLength(entry)),
      );
      return `${lists.timeMs(entry)} ${text} ${lists.itemHash(entry)}`;
    }).join();
  }).join(' | ');
}

test('snapshots that come often leave few segments, and every record where it is found', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-disk-'));
  const disk = new HistoryDisk(folder, SEGMENT_BYTES);
  const positions: number[] = [];
  disk.owners = {
    positionOf: (owner) => positions[owner]!,
    moved: (owner, position) => {
      positions[owner] = position;
    },
  };
  const record = (owner: number): Buffer => Buffer.alloc(10, owner);
  for (let owner = 0; owner < 200; owner++) {
    positions.push(disk.put(owner, record(owner)));
    disk.mergeSmall();
    disk.seal();
    // Seven small ones; the others have an eighth of a full one and more.
    assert.ok(disk.segments.length < 8 + disk.sizeBytes / (SEGMENT_BYTES / 8), `${disk.segments.length}`);
    assert.equal(openIn(folder).length, disk.segments.length);
  }
  for (const [owner, position] of positions.entries())
    assert.ok(record(owner).equals(disk.read(position, 10)), `${owner}`);
  disk.close();
  rmSync(folder, { recursive: true });
});

test('a byte that changed on disk is an error when the record is read, and when its segment is, wherever it was', () => {
  const folder = mkdtempSync(path.join(tmpdir(), 'onemall-disk-'));
  const disk = new HistoryDisk(folder, SEGMENT_BYTES);
  const records = [3, 0, 40].map((length, owner) => ({
    length,
    position: disk.put(owner, Buffer.alloc(length, 7)),
  }));
  disk.seal();
  const { number, sizeBytes } = disk.segments[0]!;
  const fd = readdirSync('/proc/self/fd').find((name) => isIn(folder, name))!;
  const file = openSync(`/proc/self/fd/${fd}`, 'r+');
  const byte = Buffer.alloc(1);
  for (let at = 0; at < sizeBytes; at++) {
    readSync(file, byte, 0, 1, at);
    byte[0]! ^= 0x10;
    writeSync(file, byte, 0, 1, at);
    assert.throws(() => disk.segmentBytes(number), /histories in .* are damaged/, `byte ${at}`);
    const damaged = records.findLast(({ position }) => position <= at)!;
    assert.throws(() => disk.read(damaged.position, damaged.length), /are damaged.*ONEMALL_HISTORY_FOLDER/s);
    byte[0]! ^= 0x10;
    writeSync(file, byte, 0, 1, at);
  }
  assert.equal(disk.segmentBytes(number).length, sizeBytes);
  for (const { position, length } of records) assert.equal(disk.read(position, length).length, length);
  closeSync(file);
  disk.close();
  rmSync(folder, { recursive: true });
});

test('users whose histories go to disk by turns, and through a snapshot, have those of users that stay in memory', () => {
  const event = fc.record({
    user: fc.integer({ min: 0, max: 6 }),
    kind: fc.constantFrom(...HISTORY_KINDS),
    timeMs: fc.integer({ min: 0, max: 500 }),
    id: fc.integer({ min: 0, max: 60 }),
    isRemoved: fc.integer({ min: 0, max: 30 }).map((n) => n === 0),
    isSaved: fc.integer({ min: 0, max: 40 }).map((n) => n === 0),
  });
  fc.assert(
    fc.property(
      fc.array(event, { maxLength: 250 }),
      fc.constantFrom(1, 700, 3_000),
      fc.integer({ min: 1, max: 5 }),
      (events, maxBytes, length) => {
        let disk = new HistoryDisk(tmpdir(), SEGMENT_BYTES);
        let onDisk = new Users(new BlockArena(), length, { cold: disk, maxBytes });
        const inMemory = new Users(new BlockArena(), length);
        const slots = new Map<number, [number, number]>();
        for (const { user, kind, timeMs, id, isRemoved, isSaved } of events) {
          const name = Buffer.from(`u${user}`);
          if (!slots.has(user))
            slots.set(user, [onDisk.add(name, 0, 2, user), inMemory.add(name, 0, 2, user)]);
          const [a, b] = slots.get(user)!;
          if (isRemoved) {
            onDisk.remove(a);
            inMemory.remove(b);
            slots.delete(user);
            continue;
          }
          const entry = entryOf(String(id), timeMs);
          onDisk.remember(a, kind, entry, () => timeMs - 50);
          inMemory.remember(b, kind, entry, () => timeMs - 50);
          assert.equal(onDisk.numEntries, inMemory.numEntries);
          if (!isSaved) continue;
          const sections = new Sections();
          disk.seal();
          onDisk.save(sections);
          const files = [...sections.files()].map(([file, pieces]): [string, Buffer] => [
            file,
            Buffer.concat(pieces),
          ]);
          disk = moved(disk, tmpdir());
          // Ids lie in an arena that is saved with the partition; here they are put anew.
          onDisk = new Users(new BlockArena(), length, { cold: disk, maxBytes });
          onDisk.load(Sections.ofFiles(new Map(files)));
        }
        for (const [a, b] of slots.values()) assert.equal(everythingOf(onDisk, a), everythingOf(inMemory, b));
        assert.ok(maxBytes > 1 || onDisk.numWarm <= Math.max(1, slots.size));
        disk.close();
      },
    ),
    { seed: 8, numRuns: 120 },
  );
});

test('a disk that takes nothing leaves histories whole in memory, and is tried again as they grow', () => {
  const disk = new HistoryDisk(tmpdir(), SEGMENT_BYTES);
  const { seal } = HistoryDisk.prototype;
  let isFull = true;
  disk.seal = () => {
    if (isFull) throw new ColdHistoriesError('full');
    seal.call(disk);
  };
  const users = new Users(new BlockArena(), 50, { cold: disk, maxBytes: 1_000 });
  const slots = Array.from({ length: 40 }, (_, i) => users.add(Buffer.from(`u${i}`), 0, 2, i));
  const fill = (from: number, to: number): void => {
    for (let i = from; i < to; i++)
      for (const slot of slots) users.remember(slot, 'clicks', entryOf(`c${i}`, i), () => 0);
  };
  fill(0, 8);
  assert.match(users.coldError!.message, /full/);
  assert.equal(users.numEntries, 320);
  assert.ok(users.numWarm > 30);
  isFull = false;
  fill(8, 16);
  assert.equal(users.coldError, null);
  assert.ok(users.numWarm < 10, `${users.numWarm} warm`);
  for (const slot of slots) assert.equal(everythingOf(users, slot).split(',').length, 16);
  disk.close();
});

test('a folder that cannot be written to is named, with what to do', () => {
  const disk = new HistoryDisk(import.meta.filename, SEGMENT_BYTES);
  disk.put(1, Buffer.alloc(400));
  assert.throws(
    () => disk.put(1, Buffer.alloc(400)),
    (error: Error) =>
      error instanceof ColdHistoriesError &&
      error.message.includes(import.meta.filename) &&
      /Make room there, or set ONEMALL_HISTORY_FOLDER .* or raise ONEMALL_HISTORY_CACHE_MB/.test(
        error.message,
      ),
  );
  disk.close();
});
