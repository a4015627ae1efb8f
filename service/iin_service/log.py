"""The service's log, for what has to be told and cannot be told to a caller."""

import logging

__all__ = ["logger"]

logger = logging.getLogger("ray.serve.iin_service")
"""Below Serve's own logger, so it has that one's level and its file, `serve/replica_*.log` in Ray's folder of logs.

Serve passes what a replica writes to standard error on at INFO, which its level here drops.
"""
