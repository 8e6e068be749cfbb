"""The same policy decoded by Python onnxruntime: one process, one thread, a beam in numpy over the same trie.

peer.py FOLDER plain|cached BEAM SECONDS prints one line of JSON. `plain` runs graphs that read whole prefixes at each level,
`cached` the published ones, which keep keys and values of earlier tokens. The inputs of the context graph are given, so that
the peer builds no features.
"""
import json
import resource
import sys
import time

import numpy as np
import onnxruntime as ort

folder, mode, beam, seconds = sys.argv[1], sys.argv[2], int(sys.argv[3]), float(sys.argv[4])
with open(f"{folder}/scene.json") as f:
    scene = json.load(f)
with open(f"{folder}/policy.json") as f:
    policy = json.load(f)
options = ort.SessionOptions()
options.intra_op_num_threads = 1
options.log_severity_level = 3


def load(role):
    return ort.InferenceSession(f"{folder}/{role}.onnx", options, providers=["CPUExecutionProvider"])


def array(name, dtype):
    return np.fromfile(f"{folder}/{name}.bin", dtype=dtype)


widths = policy["beamWidths"]
width = next((w for w in widths if w >= beam), widths[-1])
encode = load("context")
prefix = "plain" if mode == "plain" else "decode"
first = load("plain-0-1" if mode == "plain" else "decode-0")
later = {level: load(f"{prefix}-{level}-{width}") for level in (1, 2)}
codes = [array(f"codes{level}", np.int32) for level in (1, 2, 3)]
starts = [None, array("starts2", np.int32), array("starts3", np.int32)]
scenario = np.array([scene["scenario"]], np.int32)
offsets = scene["offsets"]
counts = scene["numCodes"]
histories = array("histories", np.int32).reshape(-1, 5, 3, 1, policy["historyLength"])
NAMES = ["codes1", "codes2", "codes3", "ages", "scenarios"]


def columns(log_probs, level):
    """Log-probabilities of the scenario's own codes: a plain graph gives those of all scenarios."""
    return log_probs[:, offsets[level] : offsets[level] + counts[level]] if mode == "plain" else log_probs


def padded(rows, size):
    out = np.zeros((size, *rows.shape[1:]), rows.dtype)
    out[: len(rows)] = rows
    return out


def best(scores, k):
    top = np.argpartition(-scores, k - 1)[:k] if len(scores) > k else np.arange(len(scores))
    return top[np.argsort(-scores[top], kind="stable")]


def decode(level, context, chosen, parents, cache1, cache2):
    """Rows of log-probabilities for the beam, and their cache, in runs of `width` rows."""
    n = len(chosen[-1])
    parts, caches = [], []
    for begin in range(0, n, width):
        rows = slice(begin, begin + width)
        feeds = {"context": context, "scenario": scenario}
        if mode == "plain":
            for i in range(level):
                feeds[f"prefix{i + 1}"] = padded(chosen[i][rows] + offsets[i], width).astype(np.int32)
        else:
            feeds["code"] = padded(chosen[-1][rows] + offsets[level - 1], width).astype(np.int32)
            feeds["cache1"] = cache1
            if level == 2:
                feeds["cache2"] = padded(cache2[parents[rows]], width)
        out = later[level].run(None, feeds)
        parts.append(out[0][: n - begin])
        caches.extend(out[1:])
    join = lambda list_: list_[0] if len(list_) == 1 else np.concatenate(list_)
    return join(parts), join(caches) if caches else None


def search(history):
    feeds = {f"history.{name}": history[i] for i, name in enumerate(NAMES)}
    context = encode.run(None, feeds)[0].reshape(policy["contextRows"], policy["dim"])
    out = first.run(None, {"context": context, "scenario": scenario})
    cache1, cache2 = (out[1], None) if mode == "cached" else (None, None)
    scores = columns(out[0], 0)[0][codes[0]].astype(np.float64)
    nodes = best(scores, beam)
    scores = scores[nodes]
    chosen = [codes[0][nodes]]
    parents = nodes
    for level in (1, 2):
        log_probs, cache = decode(level, context, chosen, parents, cache1, cache2)
        log_probs = columns(log_probs, level)
        cache2 = cache if cache is not None else cache2
        begin, end = starts[level][nodes], starts[level][nodes + 1]
        sizes = end - begin
        row = np.repeat(np.arange(len(nodes)), sizes)
        node = np.arange(sizes.sum()) - np.repeat(np.cumsum(sizes) - sizes, sizes) + np.repeat(begin, sizes)
        found = scores[row] + log_probs[row, codes[level][node]]
        top = best(found, beam)
        scores, nodes, parents = found[top], node[top], row[top]
        chosen = [c[parents] for c in chosen] + [codes[level][nodes]]
    return nodes, scores


for i in range(5):
    search(histories[i % len(histories)])
top, scores = search(histories[0])
latencies = []
cpu = time.process_time()
begin = time.perf_counter()
while time.perf_counter() - begin < seconds:
    at = time.perf_counter()
    search(histories[len(latencies) % len(histories)])
    latencies.append((time.perf_counter() - at) * 1000)
elapsed = time.perf_counter() - begin
print(
    json.dumps(
        {
            "onnxruntime": ort.__version__,
            "numpy": np.__version__,
            "requests": len(latencies),
            "seconds": elapsed,
            "cpuSeconds": time.process_time() - cpu,
            "latenciesMs": latencies,
            "rssMiB": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10,
            "top": top[:50].tolist(),
            "scores": scores[:50].tolist(),
        }
    )
)
