/** The k greatest scores of a stream in a binary heap over typed arrays; equal scores prefer the smaller node. */
export class TopK {
  readonly #capacity: number;
  #scores: Float64Array;
  #nodes: Float64Array;
  #rows: Int32Array;
  #size = 0;

  constructor(capacity: number) {
    this.#capacity = capacity;
    const room = Math.min(capacity, 1024);
    this.#scores = new Float64Array(room);
    this.#nodes = new Float64Array(room);
    this.#rows = new Int32Array(room);
  }

  /** @param score NaN is refused: it would make the order meaningless */
  offer(score: number, node: number, row: number): void {
    if (this.#size === this.#capacity) {
      // the root is the worst of those kept
      if (score < this.#scores[0]! || (score === this.#scores[0] && node >= this.#nodes[0]!)) return;
      if (Number.isNaN(score)) throw new RangeError(NAN_MESSAGE);
      this.#down(score, node, row);
      return;
    }
    if (Number.isNaN(score)) throw new RangeError(NAN_MESSAGE);
    if (this.#size === this.#scores.length) this.#grow();
    this.#up(this.#size++, score, node, row);
  }

  /** Best first. */
  sorted(): { score: number; node: number; row: number }[] {
    return Array.from({ length: this.#size }, (_, i) => ({
      score: this.#scores[i]!,
      node: this.#nodes[i]!,
      row: this.#rows[i]!,
    })).sort((a, b) => b.score - a.score || a.node - b.node);
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

const NAN_MESSAGE = 'A score is NaN: the policy gave log-probabilities that are not numbers';
