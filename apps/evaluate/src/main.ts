/** Composition root of `npm run evaluate -- KIND ...`. */
import { main } from './sequences/main.ts';

await main(process.argv.slice(2));
