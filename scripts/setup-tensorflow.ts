/**
 * `npm run setup:tensorflow [-- --gpu]`: gives TensorFlow.js a current TensorFlow library. Its own download is TensorFlow 2.9; the
 * wheel of TensorFlow 2.15.1 holds a newer one with the same C interface, and headers to build the binding against.
 *
 * Needs python3 with pip, and a C++ compiler with make. Installs into the folder of `tensorflowFolder` and says so at the end;
 * a finished installation is left alone. --gpu takes the wheel for CUDA 12 instead of the one for CPUs. --within SECONDS gives up
 * on downloads that take longer. Exits 3 where the wheel or a tool cannot be had, 1 where something fails that should work; which it
 * was stands in a file beside the folder, for the tests (setup-outcome.ts).
 */
import { type SpawnSyncOptions, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  renameSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { loadNativeTensorflow, tensorflowFolder, writeSetupOutcome } from '@onemall/learning/tensorflow';

const TENSORFLOW = '2.15.1';
const TFJS = '4.22.0';
const HEADERS = ['tensorflow', 'tsl', 'xla', 'absl'];

/** Not our fault: no such wheel, tool or network here. */
class CannotBeHad extends Error {}
const CANNOT_BE_HAD = 3;

const { values } = parseArgs({
  options: { gpu: { type: 'boolean', default: false }, within: { type: 'string' } },
});
const withinMs = values.within === undefined ? undefined : 1000 * Number(values.within);
if (withinMs !== undefined && !(withinMs > 0))
  throw new Error(`--within takes seconds above 0, got ${values.within}`);
const folder = tensorflowFolder();
/** Moved to its place when it is whole: others look there meanwhile. */
const growing = `${folder}.${process.pid}.tmp`;

function run(command: string, args: readonly string[], options: SpawnSyncOptions = {}): void {
  console.log(`> ${command} ${args.join(' ')}`);
  const { status, signal, error } = spawnSync(command, args, { stdio: 'inherit', ...options });
  if (status === 0) return;
  throw new Error(
    `${command} failed (${error?.message ?? signal ?? `exit code ${status}`}); nothing is installed yet`,
  );
}

const startedMs = performance.now();
/** One that needs the network. */
function download(command: string, args: readonly string[], options: SpawnSyncOptions = {}): void {
  const leftMs = withinMs && Math.max(1, withinMs - (performance.now() - startedMs));
  try {
    run(command, args, { ...options, ...(leftMs && { timeout: Math.round(leftMs) }) });
  } catch (error) {
    throw new CannotBeHad((error as Error).message, { cause: error });
  }
}

/** Where node's headers are; without them node-gyp downloads them. */
function nodeHeaders(): string | undefined {
  const prefixes = [path.dirname(path.dirname(process.execPath)), '/usr', '/usr/local'];
  return prefixes.find((prefix) => existsSync(path.join(prefix, 'include/node/node_api.h')));
}

function install(): void {
  for (const [tool, ...args] of [
    ['python3', '-m', 'pip', '--version'],
    ['make', '--version'],
    ['c++', '--version'],
    ['npm', '--version'],
  ] as const)
    if (spawnSync(tool, args).status !== 0)
      throw new CannotBeHad(`${[tool, ...args].join(' ')} does not run here`);
  rmSync(growing, { recursive: true, force: true });
  mkdirSync(growing, { recursive: true });

  const wheels = path.join(growing, 'wheel');
  const wheel = `${values.gpu ? 'tensorflow' : 'tensorflow-cpu'}==${TENSORFLOW}`;
  const platform = ['manylinux_2_17_x86_64', 'manylinux2014_x86_64'].flatMap((p) => ['--platform', p]);
  const python = ['--python-version', '3.11', '--only-binary', ':all:', '--no-deps'];
  const pip = ['-m', 'pip', 'download', '--progress-bar', 'off', '--retries', '1'];
  download('python3', [...pip, ...python, ...platform, wheel, '--dest', wheels]);

  writeFileSync(path.join(growing, 'package.json'), '{ "name": "onemall-tensorflow", "private": true }\n');
  const npm = ['install', '--ignore-scripts', '--no-audit', '--no-fund', '--fetch-retries=1'];
  download('npm', [...npm, `@tensorflow/tfjs-node-gpu@${TFJS}`], { cwd: growing });

  const [file] = readdirSync(wheels);
  const unpacked = path.join(growing, 'unpacked');
  run('python3', ['-m', 'zipfile', '-e', path.join(wheels, file!), unpacked]);

  const binding = path.join(growing, 'node_modules/@tensorflow/tfjs-node-gpu');
  const [lib, include] = [path.join(binding, 'deps/lib'), path.join(binding, 'deps/include')];
  mkdirSync(lib, { recursive: true });
  mkdirSync(include, { recursive: true });
  for (const [name, short] of [
    ['libtensorflow_cc.so.2', 'libtensorflow.so'],
    ['libtensorflow_framework.so.2', 'libtensorflow_framework.so'],
  ] as const) {
    cpSync(path.join(unpacked, 'tensorflow', name), path.join(lib, name));
    for (const link of [short, `${short}.2`]) if (link !== name) symlinkSync(name, path.join(lib, link));
  }
  for (const part of HEADERS)
    cpSync(path.join(unpacked, 'tensorflow/include', part), path.join(include, part), { recursive: true });
  rmSync(unpacked, { recursive: true });
  rmSync(wheels, { recursive: true });

  const gyp = path.join(npmFolder(), 'node_modules/node-gyp/bin/node-gyp.js');
  const naming = ['--module_name=tfjs_binding', '--module_path=lib/napi-v8'];
  const version = ['--napi_build_version=8', '--napi_version=8'];
  const headers = nodeHeaders();
  if (headers === undefined) download(process.execPath, [gyp, 'install'], { cwd: binding });
  const nodedir = headers === undefined ? [] : [`--nodedir=${headers}`];
  run(process.execPath, [gyp, 'rebuild', ...nodedir, ...naming, ...version], { cwd: binding });
  mkdirSync(path.join(binding, 'lib/napi-v8'), { recursive: true });
  cpSync(
    path.join(binding, 'build/Release/tfjs_binding.node'),
    path.join(binding, 'lib/napi-v8/tfjs_binding.node'),
  );
  rmSync(path.join(binding, 'build'), { recursive: true });
  rmSync(folder, { recursive: true, force: true });
  renameSync(growing, folder);
}

/** The folder of npm itself, whose node-gyp is used. */
function npmFolder(): string {
  const asked = process.env.npm_execpath;
  const found = asked ?? spawnSync('which', ['npm'], { encoding: 'utf8' }).stdout.trim();
  return path.dirname(path.dirname(realpathSync(found)));
}

/** What is installed works. @throws Error when it does not */
async function tryOut(): Promise<string> {
  const tf = await loadNativeTensorflow(folder);
  const { binding } = tf.backend() as unknown as { binding: { TF_Version: string } };
  if (binding.TF_Version !== TENSORFLOW)
    throw new Error(
      `${folder} holds TensorFlow ${binding.TF_Version}, expected ${TENSORFLOW}: remove it and run this again`,
    );
  const product = tf.tidy(() => tf.matMul(tf.ones([2, 3]), tf.ones([3, 2])).dataSync()[0]);
  if (product !== 3) throw new Error(`TensorFlow loads but says that 1 + 1 + 1 is ${product}`);
  return `TensorFlow.js with TensorFlow ${TENSORFLOW} works in ${folder}${tf.usesGpu ? ', on a GPU' : ''}`;
}

writeSetupOutcome(folder, 'running');
try {
  if (process.platform !== 'linux' || process.arch !== 'x64')
    throw new CannotBeHad(`the wheel is for Linux on x64, this is ${process.platform} on ${process.arch}`);
  const loads = await loadNativeTensorflow(folder).then(
    () => true,
    () => false,
  );
  if (!loads) install();
  console.log(await tryOut());
  writeSetupOutcome(folder, 'installed');
} catch (error) {
  rmSync(growing, { recursive: true, force: true });
  const { message } = error as Error;
  writeSetupOutcome(folder, error instanceof CannotBeHad ? 'cannot be had' : 'failed', message);
  if (!(error instanceof CannotBeHad)) throw error;
  console.error(`TensorFlow ${TENSORFLOW} cannot be had: ${message}`);
  process.exit(CANNOT_BE_HAD);
}
