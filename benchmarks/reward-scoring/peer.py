"""The same ranker scored by Python onnxruntime: peer.py RANKER.onnx ROWS DENSE IDS SECONDS THREADS prints one line of JSON."""
import json
import sys
import time

import numpy as np
import onnxruntime as ort

path, rows, num_dense, num_ids, seconds, threads = sys.argv[1], *map(int, sys.argv[2:5]), float(sys.argv[5]), int(sys.argv[6])
options = ort.SessionOptions()
options.intra_op_num_threads = threads
options.log_severity_level = 3
session = ort.InferenceSession(path, options, providers=["CPUExecutionProvider"])
random = np.random.default_rng(1)
feeds = [
    {
        "dense": random.random((rows, num_dense), np.float32),
        "ids": random.integers(0, 1 << 30, (rows, num_ids)).astype(np.int32),
    }
    for _ in range(8)
]
for i in range(20):
    session.run(None, feeds[i % 8])
runs = 0
cpu = time.process_time()
begin = time.perf_counter()
while time.perf_counter() - begin < seconds:
    session.run(None, feeds[runs % 8])
    runs += 1
elapsed = time.perf_counter() - begin
print(
    json.dumps(
        {
            "onnxruntime": ort.__version__,
            "rowsPerS": runs * rows / elapsed,
            "rowsPerCpuS": runs * rows / (time.process_time() - cpu),
        }
    )
)
