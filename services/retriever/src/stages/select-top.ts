/** The k greatest scores of a stream in a binary heap over typed arrays; equal scores prefer the smaller node. */

/** Best first. */
export interface Ranked {
  size: number;
  scores: Float64Array;
  nodes: Float64Array;
  rows: Int32Array;
}

export class TopK {
  readonly #capacity: number;
  #scores: Float64Array;
  #nodes: Float64Array;
  #rows: Int32Array;
  #size = 0;
  /** What is less cannot enter any more; -Infinity until the heap is full. */
  worst = Number.NEGATIVE_INFINITY;

  constructor(capacity: number) {
    this.#capacity = capacity;
    const room = Math.min(capacity, 1024);
    this.#scores = new Float64Array(room);
    this.#nodes = new Float64Array(room);
    this.#rows = new Int32Array(room);
  }

  /** @param score NaN is refused: it would make the order meaningless */
  offer(score: number, node: number, row: number): void {
    if (Number.isNaN(score))
      throw new RangeError('A score is NaN: the policy gave log-probabilities that are not numbers');
    if (this.#size === this.#capacity) {
      // the root is the worst of those kept
      if (score < this.#scores[0]! || (score === this.#scores[0] && node >= this.#nodes[0]!)) return;
      this.#down(score, node, row);
      this.worst = this.#scores[0]!;
      return;
    }
    if (this.#size === this.#scores.length) this.#grow();
    this.#up(this.#size++, score, node, row);
    if (this.#size === this.#capacity) this.worst = this.#scores[0]!;
  }

  ranked(): Ranked {
    const size = this.#size;
    const [scores, nodes, rows] = [this.#scores, this.#nodes, this.#rows];
    const order = Int32Array.from({ length: size }, (_, i) => i).sort(
      (a, b) => scores[b]! - scores[a]! || nodes[a]! - nodes[b]!,
    );
    const ranked = {
      size,
      scores: new Float64Array(size),
      nodes: new Float64Array(size),
      rows: new Int32Array(size),
    };
    for (let i = 0; i < size; i++) {
      const at = order[i]!;
      ranked.scores[i] = scores[at]!;
      ranked.nodes[i] = nodes[at]!;
      ranked.rows[i] = rows[at]!;
    }
    return ranked;
  }

  #worse(score: number, node: number, at: number): boolean {
    return score < this.#scores[at]! || (score === this.#scores[at] && node > this.#nodes[at]!);
  }

  #up(start: number, score: number, node: number, row: number): void {
    let at = start;
    while (at > 0) {
      const parent = (at - 1) >> 1;
      if (!this.#worse(score, node, parent)) break;
      this.#move(parent, at);
      at = parent;
    }
    this.#put(at, score, node, row);
  }

  #down(score: number, node: number, row: number): void {
    let at = 0;
    for (;;) {
      let child = 2 * at + 1;
      if (child >= this.#size) break;
      if (child + 1 < this.#size && this.#worse(this.#scores[child + 1]!, this.#nodes[child + 1]!, child))
        child++;
      if (this.#worse(score, node, child)) break;
      this.#move(child, at);
      at = child;
    }
    this.#put(at, score, node, row);
  }

  #put(at: number, score: number, node: number, row: number): void {
    this.#scores[at] = score;
    this.#nodes[at] = node;
    this.#rows[at] = row;
  }

  #move(from: number, to: number): void {
    this.#put(to, this.#scores[from]!, this.#nodes[from]!, this.#rows[from]!);
  }

  #grow(): void {
    const room = Math.min(this.#capacity, this.#scores.length * 2);
    const scores = new Float64Array(room);
    const nodes = new Float64Array(room);
    const rows = new Int32Array(room);
    scores.set(this.#scores);
    nodes.set(this.#nodes);
    rows.set(this.#rows);
    this.#scores = scores;
    this.#nodes = nodes;
    this.#rows = rows;
  }
}
