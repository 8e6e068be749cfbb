/** The semantic IDs that exist, as a tree: which codes may follow a prefix, and which items a full SID has. */

export class SidTrie {
  readonly numLevels: number;
  readonly numCodes: readonly number[];
  /** Per level, of node n of that depth: children lie from begin[n] to begin[n + 1] - 1, by ascending code. */
  readonly levels: readonly { begin: Int32Array; codes: Int32Array; nodes: Int32Array }[];
  /** Node at each depth of item i + 1; depth numLevels are the leaves. */
  readonly nodeOfItem: readonly Int32Array[];
  /** Items of each leaf. */
  readonly items: readonly (readonly number[])[];

  /** @param codes int32 [numItems, numLevels] @throws Error for a code outside its level */
  constructor(codes: Int32Array, numCodes: readonly number[]) {
    const numLevels = numCodes.length;
    const numItems = codes.length / numLevels;
    this.numLevels = numLevels;
    this.numCodes = numCodes;
    const nodeOfItem = [new Int32Array(numItems)];
    let numNodes = 1;
    this.levels = numCodes.map((count, level) => {
      const parents = nodeOfItem[level]!;
      const children = Array.from({ length: numNodes }, () => new Set<number>());
      for (let i = 0; i < numItems; i++) {
        const code = codes[i * numLevels + level]!;
        if (!(code >= 0 && code < count))
          throw new Error(`Code ${code} of item ${i + 1} at level ${level + 1} is outside 0..${count - 1}`);
        children[parents[i]!]!.add(code);
      }
      const sorted = children.map((set) => [...set].sort((a, b) => a - b));
      const begin = new Int32Array(numNodes + 1);
      for (let n = 0; n < numNodes; n++) begin[n + 1] = begin[n]! + sorted[n]!.length;
      const flat = Int32Array.from(sorted.flat());
      const place = sorted.map((list, n) => new Map(list.map((code, i) => [code, begin[n]! + i])));
      nodeOfItem.push(parents.map((node, i) => place[node]!.get(codes[i * numLevels + level]!)!));
      numNodes = flat.length;
      return { begin, codes: flat, nodes: Int32Array.from(flat.keys()) };
    });
    this.nodeOfItem = nodeOfItem;
    const items: number[][] = Array.from({ length: numNodes }, () => []);
    nodeOfItem[numLevels]!.forEach((leaf, i) => {
      items[leaf]!.push(i + 1);
    });
    this.items = items;
  }

  /** mask.level<l> float32 [rows, V]: 1 where a code continues the target's prefix; all of a padded row (target 0). */
  masks(targets: Int32Array): Record<string, Float32Array> {
    return Object.fromEntries(
      this.levels.map(({ begin, codes }, level) => {
        const count = this.numCodes[level]!;
        const mask = new Float32Array(targets.length * count);
        targets.forEach((target, row) => {
          if (target === 0) {
            mask.fill(1, row * count, (row + 1) * count);
            return;
          }
          const node = this.nodeOfItem[level]![target - 1]!;
          for (let c = begin[node]!; c < begin[node + 1]!; c++) mask[row * count + codes[c]!] = 1;
        });
        return [`mask.level${level + 1}`, mask];
      }),
    );
  }
}
