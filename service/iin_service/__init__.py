"""The Ray Serve application that answers interpret, edit and sample over gRPC from a bundle.

`iin-serve` is `cli`, which deploys bundles by `app`. A call to Interpret passes through these modules, and its result
back through them:

    replica     Serve calls Replica.Interpret, which calls the bundle that is served
    rpc         checks the size of the answer, has the items admitted, converts the result (responses)
    answering   around it: counts the call and its bytes (room), makes exceptions statuses (faults)
    inputs      reads the items of the request as arrays (images)
    engine      which graphs in which order; edits, walks and analysis for the other calls
    graphs      a stage for each graph, and whom an overflow is blamed on
    stage       batches what waits
    sessions    onnxruntime

`inference` takes the place of `rpc` for the Open Inference Protocol. `items` and `errors` are what all of them share.
"""

import os

# onnxruntime tells Microsoft of every session unless this is set when it is imported.
os.environ.setdefault("ORT_DISABLE_TELEMETRY", "1")
