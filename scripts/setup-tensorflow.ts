/**
 * `npm run setup:tensorflow [-- --gpu]`: gives TensorFlow.js a current TensorFlow library. Its own download is TensorFlow 2.9; the
 * wheel of TensorFlow 2.15.1 holds a newer one with the same C interface, and headers to build the binding against.
 *
 * Needs python3 with pip, and a C++ compiler with make. Installs into the folder of `tensorflowFolder` and says so at the end;
 * a finished installation is left alone. --gpu takes the wheel for CUDA 12 instead of the one for CPUs.
 */
import { type SpawnSyncOptions, spawnSync } from 'node:child_process';
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  realpathSync,
  rmSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs';
import path from 'node:path';
import { parseArgs } from 'node:util';
import { loadNativeTensorflow, tensorflowFolder } from '@onemall/learning/tensorflow';

const TENSORFLOW = '2.15.1';
const TFJS = '4.22.0';
const HEADERS = ['tensorflow', 'tsl', 'xla', 'absl'];

const { values } = parseArgs({ options: { gpu: { type: 'boolean', default: false } } });
const folder = tensorflowFolder();

function run(command: string, args: readonly string[], options: SpawnSyncOptions = {}): void {
  console.log(`> ${command} ${args.join(' ')}`);
  const { status, error } = spawnSync(command, args, { stdio: 'inherit', ...options });
  if (status !== 0)
    throw new Error(
      `${command} failed (${error?.message ?? `exit code ${status}`}); nothing is installed yet`,
    );
}

/** Where node's headers are; without them node-gyp downloads them. */
function nodeHeaders(): string[] {
  const prefixes = [path.dirname(path.dirname(process.execPath)), '/usr', '/usr/local'];
  const found = prefixes.find((prefix) => existsSync(path.join(prefix, 'include/node/node_api.h')));
  return found === undefined ? [] : [`--nodedir=${found}`];
}

function install(): void {
  rmSync(folder, { recursive: true, force: true });
  mkdirSync(folder, { recursive: true });
  writeFileSync(path.join(folder, 'package.json'), '{ "name": "onemall-tensorflow", "private": true }\n');
  run(
    'npm',
    ['install', '--ignore-scripts', '--no-audit', '--no-fund', `@tensorflow/tfjs-node-gpu@${TFJS}`],
    {
      cwd: folder,
    },
  );

  const wheels = path.join(folder, 'wheel');
  const wheel = `${values.gpu ? 'tensorflow' : 'tensorflow-cpu'}==${TENSORFLOW}`;
  const platform = ['manylinux_2_17_x86_64', 'manylinux2014_x86_64'].flatMap((p) => ['--platform', p]);
  const python = ['--python-version', '3.11', '--only-binary', ':all:', '--no-deps'];
  run('python3', ['-m', 'pip', 'download', ...python, ...platform, wheel, '--dest', wheels]);
  const [file] = readdirSync(wheels);
  const unpacked = path.join(folder, 'unpacked');
  run('python3', ['-m', 'zipfile', '-e', path.join(wheels, file!), unpacked]);

  const binding = path.join(folder, 'node_modules/@tensorflow/tfjs-node-gpu');
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
  run(process.execPath, [gyp, 'rebuild', ...nodeHeaders(), ...naming, ...version], { cwd: binding });
  mkdirSync(path.join(binding, 'lib/napi-v8'), { recursive: true });
  cpSync(
    path.join(binding, 'build/Release/tfjs_binding.node'),
    path.join(binding, 'lib/napi-v8/tfjs_binding.node'),
  );
  rmSync(path.join(binding, 'build'), { recursive: true });
}

/** The folder of npm itself, whose node-gyp is used. */
function npmFolder(): string {
  const asked = process.env.npm_execpath;
  const found = asked ?? spawnSync('which', ['npm'], { encoding: 'utf8' }).stdout.trim();
  return path.dirname(path.dirname(realpathSync(found)));
}

if (process.platform !== 'linux' || process.arch !== 'x64')
  throw new Error(`The wheel is for Linux on x64, this is ${process.platform} on ${process.arch}`);
const loads = await loadNativeTensorflow(folder).then(
  () => true,
  () => false,
);
if (!loads) install();
const tf = await loadNativeTensorflow(folder);
const product = tf.tidy(() => tf.matMul(tf.ones([2, 3]), tf.ones([3, 2])).dataSync()[0]);
if (product !== 3) throw new Error(`TensorFlow loads but says that 1 + 1 + 1 is ${product}`);
console.log(
  `TensorFlow.js with TensorFlow ${TENSORFLOW} works in ${folder}${tf.usesGpu ? ', on a GPU' : ''}`,
);
