"""The Ray Serve application that answers interpret, edit and sample over gRPC from a bundle."""

import os

# onnxruntime tells Microsoft of every session unless this is set when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
