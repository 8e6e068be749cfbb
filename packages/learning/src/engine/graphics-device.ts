/** Whether WebGPU computes on a device: Vulkan also has drivers that compute on the CPU, and onnxruntime does not say which it got. */
import { existsSync, readdirSync, readlinkSync } from 'node:fs';
import path from 'node:path';

/** Kernel drivers of render nodes without hardware behind them. */
const WITHOUT_HARDWARE = ['vgem', 'vkms', 'virtio-pci', 'virtio_gpu', 'bochs-drm', 'simple-framebuffer'];

/**
 * On Linux: NVIDIA's driver, the device of a Linux on Windows, or a render node whose kernel driver has hardware. Other systems bring
 * WebGPU over a driver of their own.
 * @param root of the file system
 */
export function hasGraphicsDevice(platform: string = process.platform, root = '/'): boolean {
  if (platform !== 'linux') return true;
  const at = (...parts: string[]): string => path.join(root, ...parts);
  if (existsSync(at('proc/driver/nvidia/version')) || existsSync(at('dev/dxg'))) return true;
  const nodes = existsSync(at('dev/dri')) ? readdirSync(at('dev/dri')) : [];
  return nodes.some((node) => {
    if (!node.startsWith('renderD')) return false;
    try {
      const driver = path.basename(readlinkSync(at('sys/class/drm', node, 'device/driver')));
      return !WITHOUT_HARDWARE.includes(driver);
    } catch {
      return false; // no driver bound: nothing computes there
    }
  });
}
