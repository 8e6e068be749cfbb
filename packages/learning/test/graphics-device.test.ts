import assert from 'node:assert/strict';
import { mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import path from 'node:path';
import { test } from 'node:test';
import { hasGraphicsDevice } from '../src/engine/graphics-device.ts';

/** A file system with these files, and render nodes by the name of their driver. */
function withSystem(
  files: readonly string[],
  nodes: Readonly<Record<string, string | null>>,
  check: (root: string) => void,
) {
  const root = mkdtempSync(path.join(tmpdir(), 'onemall-gpu-'));
  try {
    const put = (file: string): void => {
      mkdirSync(path.dirname(path.join(root, file)), { recursive: true });
      writeFileSync(path.join(root, file), '');
    };
    for (const file of files) put(file);
    for (const [node, driver] of Object.entries(nodes)) {
      put(path.join('dev/dri', node));
      const device = path.join(root, 'sys/class/drm', node, 'device');
      mkdirSync(device, { recursive: true });
      if (driver) symlinkSync(`../../../bus/pci/drivers/${driver}`, path.join(device, 'driver'));
    }
    check(root);
  } finally {
    rmSync(root, { recursive: true });
  }
}

test('WebGPU counts as a device only where the system has one', () => {
  for (const [files, nodes, expected] of [
    [[], {}, false],
    [['proc/driver/nvidia/version'], {}, true],
    [['dev/dxg'], {}, true],
    [[], { card0: 'amdgpu' }, false],
    [[], { renderD128: 'amdgpu' }, true],
    [[], { renderD128: 'vgem' }, false],
    [[], { renderD128: null }, false],
    [[], { renderD128: 'virtio-pci', renderD129: 'i915' }, true],
  ] as const)
    withSystem(files, nodes, (root) =>
      assert.equal(hasGraphicsDevice('linux', root), expected, JSON.stringify({ files, nodes })),
    );
  assert.equal(hasGraphicsDevice('darwin', '/nowhere'), true);
});
