// Runs a TypeScript entry point on Node 24 from a bare clone: `node scripts/bootstrap.mjs [--beside] ENTRY ARGS...`
// --beside gives the tool the settings of the pipeline that `npm start` runs here, unless ONEMALL_CONFIG names others.
// Plain JavaScript without dependencies, since it runs on the host's Node (20 or newer) before anything is installed.
import { spawn, spawnSync } from 'node:child_process';
import { createHash } from 'node:crypto';
import { existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs';
import path from 'node:path';
import { fileURLToPath } from 'node:url';

const root = path.dirname(path.dirname(fileURLToPath(import.meta.url)));
const askedMs = Date.now();
const beside = process.argv[2] === '--beside';
const [entry, ...args] = process.argv.slice(beside ? 3 : 2);

if (Number(process.versions.node.split('.')[0]) < 20) {
  console.error(
    `OneMall Pipeline needs Node 20 or newer to begin with; this is ${process.version}. Install it from your package manager or nodejs.org.`,
  );
  process.exit(1);
}

// Install when the lock file is not the one last installed from, or an install was cut off.
const lock = createHash('sha256')
  .update(readFileSync(path.join(root, 'package-lock.json')))
  .digest('hex');
let installed = false;
const stamp = path.join(root, 'node_modules', '.onemall-installed');
if (!existsSync(stamp) || readFileSync(stamp, 'utf8') !== lock) {
  console.log('Installing npm packages (about a minute the first time) ...');
  rmSync(stamp, { force: true });
  const { status } = spawnSync('npm', ['ci', '--loglevel=error'], {
    cwd: root,
    stdio: ['ignore', 'inherit', 'inherit'],
    shell: process.platform === 'win32',
  });
  if (status !== 0) {
    console.error(
      'npm ci failed: see above. Check the network and the npm registry setting (npm config get registry), then run the command again.',
    );
    process.exit(1);
  }
  writeFileSync(stamp, lock);
  installed = true;
}

// The npm package `node` brings Node 24, which runs TypeScript as it is.
const bin = path.join(root, 'node_modules', '.bin');
const node = path.join(
  root,
  'node_modules',
  'node',
  'bin',
  process.platform === 'win32' ? 'node.exe' : 'node',
);
const hasNode24 = existsSync(node);
if (!hasNode24 && Number(process.versions.node.split('.')[0]) < 24) {
  console.error(
    `OneMall Pipeline runs on Node 24, which the npm package "node" brings, and ${node} is missing: npm ran without install scripts or without this platform's package. Allow them and run npm ci, or start with a Node 24 of your own; this is ${process.version}.`,
  );
  process.exit(1);
}
const env = { ...process.env, PATH: bin + path.delimiter + process.env.PATH };
// The launcher's report tells how long a start takes, and whether it had to install first.
env.ONEMALL_ASKED_MS ??= String(askedMs);
if (installed) env.ONEMALL_INSTALLED = '1';
const runningConfig = path.join(root, '.data', 'run', 'config.json');
if (beside && !env.ONEMALL_CONFIG && existsSync(runningConfig)) env.ONEMALL_CONFIG = runningConfig;
const child = spawn(hasNode24 ? node : process.execPath, [path.join(root, entry), ...args], {
  cwd: root,
  stdio: 'inherit',
  env,
});
// The terminal sends Ctrl-C to the whole group; a plain kill reaches only this process and is passed on.
process.on('SIGINT', () => {});
process.on('SIGTERM', () => child.kill('SIGTERM'));
child.on('exit', (code, signal) => process.exit(code ?? (signal === 'SIGINT' ? 130 : 143)));
