/** Composition root of `npm run evaluate -- KIND ...`. */
import { closedLoop } from './closed-loop/command-line.ts';
import { main } from './sequences/main.ts';
import { isWorldKind, world } from './world/main.ts';

const [kind = '', ...rest] = process.argv.slice(2);
if (isWorldKind(kind)) console.log(await world(kind, rest));
else if (kind === 'closed-loop') console.log(await closedLoop(rest));
else await main(process.argv.slice(2));
