"""Serve's decision how many replicas there should be."""

import math
from collections import deque
from pathlib import Path

import yaml
from pydantic import ValidationError
from pydantic.dataclasses import dataclass

from deploy.capacity.inputs import Count, NotNegative, Positive, what_is_wrong

__all__ = ["Autoscaler", "Autoscaling", "read_autoscaling"]

EPSILON_S = 1e-6  # sums of steps may fall short of a delay by rounding


@dataclass(frozen=True, kw_only=True, config={"extra": "forbid"})
class Autoscaling:
    """Serve's autoscaling_config of a deployment, and what Serve does not say: how long a replica takes to come."""

    min_replicas: Count = 1
    max_replicas: Count = 1
    target_ongoing_requests: Positive = 2.0
    """Calls under way for each replica that Serve aims at."""
    look_back_period_s: Positive = 30.0
    """Seconds over which calls under way are averaged."""
    upscale_delay_s: NotNegative = 30.0
    """Seconds for which more replicas must be wanted."""
    downscale_delay_s: NotNegative = 600.0
    """Seconds for which fewer must be wanted."""
    upscaling_factor: Positive = 1.0
    """Share of the way to the wanted number that a step up goes."""
    downscaling_factor: Positive = 1.0
    """The same of a step down."""
    start_s: NotNegative = 10.0
    """Seconds until a new replica answers (assumed): some where its pod runs, a minute or two where that must come."""

    def __post_init__(self) -> None:
        """Refuse what Serve would refuse."""
        if self.min_replicas > self.max_replicas:
            raise ValueError(
                f"min_replicas, max_replicas: expected min <= max, got {self.min_replicas} and {self.max_replicas}"
            )


def read_autoscaling(path: Path, start_s: float = 10.0) -> Autoscaling:
    """The autoscaling_config of the one deployment of a Serve configuration."""
    try:
        (application,) = yaml.safe_load(path.read_text())["applications"]
        (deployment,) = application["deployments"]
        given = deployment["autoscaling_config"] | {"start_s": start_s}
    except (KeyError, TypeError, ValueError, yaml.YAMLError) as error:
        raise ValueError(f"{path}: expected one application, one deployment and its autoscaling_config") from error
    try:
        return Autoscaling(**given)
    except ValidationError as error:
        raise ValueError(f"{path}: autoscaling_config: {what_is_wrong(error)}") from None


class Autoscaler:
    """Calls under way, averaged over the look-back period, divided by the target; more or fewer only after a delay.

    As ray.serve.autoscaling_policy of Ray 2.60 and its mean over the look-back period, which begins anew with the
    youngest replica and forgets one that goes; that replicas push what they count every 10 s is left out.
    """

    def __init__(self, settings: Autoscaling) -> None:
        """Begin with the least replicas."""
        self.settings = settings
        self.target = settings.min_replicas
        """Replicas that should run."""
        self._seen: deque[tuple[float, float, int]] = deque()  # when, calls under way, replicas
        self._since: tuple[int, float] | None = None  # direction, and since when it has been wanted

    def decide(self, now: float, ongoing: float, running: int) -> int:
        """The new target at `now`, seconds, with `ongoing` calls under way in `running` replicas, 1 or more."""
        settings = self.settings
        if self._seen and running > self._seen[-1][2]:
            self._seen.clear()
        self._seen.append((now, ongoing, running))
        while self._seen[0][0] < now - settings.look_back_period_s:
            self._seen.popleft()
        mean = sum(calls * running / count for _, calls, count in self._seen) / len(self._seen)
        needed = mean / settings.target_ongoing_requests
        factor = settings.upscaling_factor if needed > running else settings.downscaling_factor
        desired = math.ceil(running + factor * (needed - running))
        if desired == running and math.ceil(needed) < running:
            desired -= 1  # a small factor would never let go of it
        desired = min(max(desired, settings.min_replicas), settings.max_replicas)
        direction = (desired > self.target) - (desired < self.target)
        if not direction:
            self._since = None
            return self.target
        if self._since is None or self._since[0] != direction:
            self._since = (direction, now)
        delay = settings.upscale_delay_s if direction > 0 else settings.downscale_delay_s
        if now - self._since[1] + EPSILON_S >= delay:
            self._since, self.target = None, desired
        return self.target
