"""serve.yaml, the one Serve configuration: a cluster is given the file, `iin-serve` what follows from it here."""

from dataclasses import dataclass
from importlib import resources
from typing import Any

import yaml

__all__ = ["Configuration", "shipped_configuration"]

# Of a deployment in the file, what the command line decides on a laptop: how many replicas of which size.
DECIDED_BY_COMMAND = ("name", "user_config", "ray_actor_options", "autoscaling_config")
# A laptop's Ctrl-C waits for calls, not for streams of a minute; in a cluster nobody waits at a terminal.
QUICK_STOP = {"graceful_shutdown_wait_loop_s": 0.1, "graceful_shutdown_timeout_s": 10}


@dataclass(frozen=True)
class Configuration:
    """What `iin-serve` takes from serve.yaml, as arguments for Serve's own functions."""

    grpc_options: dict[str, Any]
    """Services of the gRPC port; its number is the command's."""
    logging_config: dict[str, Any]
    """Of Serve's own processes and of the replicas."""
    deployment: dict[str, Any]
    """Options of a deployment: queues, health checks, updates."""


def shipped_configuration() -> Configuration:
    """The configuration that comes with the package."""
    text = resources.files("iin_service").joinpath("serve.yaml").read_text()
    whole = yaml.safe_load(text)
    (application,) = whole["applications"]
    (deployment,) = application["deployments"]
    options = {name: value for name, value in deployment.items() if name not in DECIDED_BY_COMMAND}
    # People at a terminal read text, and ask the port what it offers; no pod is drained, so bulk work may take long.
    logging_config = whole["logging_config"] | {"encoding": "TEXT"}
    return Configuration(
        grpc_options=whole["grpc_options"] | {"enable_reflection": True, "request_timeout_s": None},
        logging_config=logging_config,
        deployment=options | QUICK_STOP | {"logging_config": logging_config},
    )
