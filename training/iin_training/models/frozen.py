"""The frozen model that is interpreted, as training, evaluation and export see it."""

import contextlib
import hashlib
import inspect
import math
import re
from typing import Literal

import numpy as np
import torch
from torch import Tensor, nn

from iin_training.models.onnx_model import OnnxModule
from iin_training.models.parts import check_output, check_part, try_part

__all__ = ["FrozenModel"]

AT_ONCE = 32  # images through the encoder at a time: the maps of large networks stay in a processor's cache
MOST_NUMBERS = 512 * 3 * 64 * 64  # in images that go through a part at a time, on any device, to bound memory
TORCHS_OWN = frozenset(vars(nn.Module()))  # attributes that every module has


class _Mean(nn.Module):
    """A sampling encoder without the sampling."""

    def __init__(self, posterior: nn.Module) -> None:
        super().__init__()
        self.posterior = posterior

    def forward(self, image: Tensor) -> Tensor:
        mean: Tensor = self.posterior(image)[0]
        return mean


class _Probabilities(nn.Module):
    """A head whose logits become probabilities."""

    def __init__(self, logits: nn.Module) -> None:
        super().__init__()
        self.logits = logits

    def forward(self, latent: Tensor) -> Tensor:
        return torch.softmax(self.logits(latent), dim=1)


class FrozenModel(nn.Module):
    """An encoder whose latents are interpreted, with what may follow them: a decoder, a classifier's head.

    Each is a torch module, or an `OnnxModule`. They are frozen in place, not copied: put in eval mode for good,
    no parameter requires a gradient.
    """

    image_shape: tuple[int, int, int]
    """(C, H, W) of one image; C is 1 (grey) or 3 (red, green, blue)."""
    value_range: tuple[float, float]
    """Values of black and of full intensity."""
    latent_shape: tuple[int, ...]
    """Shape of one latent: `(D,)`, or `(C, H, W)` for spatial latents."""
    samples: bool
    """Whether the encoder gives a distribution, (mean, log-variance)."""
    head: nn.Module | None
    """Latents `(N, *latent_shape)` to class probabilities `(N, classes)`; None where there is none."""

    def __init__(
        self,
        encoder: nn.Module,
        *,
        image_shape: tuple[int, int, int],
        value_range: tuple[float, float],
        decoder: nn.Module | None = None,
        head: nn.Module | None = None,
        head_gives: Literal["logits", "probabilities"] = "logits",
    ) -> None:
        """Freeze the parts and try them on a batch of two grey images.

        Args:
            encoder: images `(N, C, H, W)` to latents `(N, ...)`; or, where it samples, to the mean and the
                logarithm of the variance of a normal distribution over latents, both of that shape.
            image_shape: (C, H, W) of one image.
            value_range: values of black and of full intensity in the images that the encoder was trained on.
            decoder: latents to images `(N, C, H, W)` in `value_range`.
            head: latents to a number for every class, `(N, classes)`.
            head_gives: what these numbers are; a softmax is applied to logits.

        Raises:
            ValueError: where a part takes or gives something else, with what to do about it.

        """
        super().__init__()
        if np.shape(image_shape) != (3,) or image_shape[0] not in (1, 3) or min(image_shape) < 1:
            raise ValueError(
                f"image_shape: expected (C, H, W) with C = 1 (grey) or 3 (colour), got {image_shape}; "
                "for other images put a module before the encoder that makes its input from such ones"
            )
        if not (np.shape(value_range) == (2,) and -math.inf < value_range[0] < value_range[1] < math.inf):
            raise ValueError(
                f"value_range: expected two finite values, black below full intensity, got {value_range}; "
                "for example (0.0, 1.0)"
            )
        if head_gives not in ("logits", "probabilities"):
            raise ValueError(f"head_gives: expected 'logits' or 'probabilities', got {head_gives!r}")
        for role, part in (("encoder", encoder), ("decoder", decoder), ("head", head)):
            if role == "encoder" or part is not None:
                check_part(role, part)
        self.image_shape = (image_shape[0], image_shape[1], image_shape[2])
        self.value_range = (float(value_range[0]), float(value_range[1]))
        self.encoder, self.decoder, self.head = encoder, decoder, head
        if head is not None and head_gives == "logits":
            self.head = head.with_softmax() if isinstance(head, OnnxModule) else _Probabilities(head)
        self.eval().requires_grad_(False)
        before = self._unsaved()
        self._try(head, head_gives)
        after = self._unsaved()
        # What a forward changes (a cache, a counter) is no property of the model, so it is left out of the digest.
        self._passing = frozenset(name for name in before | after if before.get(name) != after.get(name))

    @torch.no_grad()
    def _try(self, head: nn.Module | None, head_gives: str) -> None:
        """Find the latents' shape and refuse parts that do not fit together; `head` is as it was given."""
        grey = sum(self.value_range) / 2
        images = torch.full((2, *self.image_shape), grey, device=self.device)
        given = try_part("encoder", self.encoder, images)
        self.samples = isinstance(given, tuple | list)
        found = list(given) if self.samples else [given]
        if self.samples and len(found) != 2:
            raise ValueError(
                f"encoder: expected one tensor of latents, or two (mean, log_variance), got {len(found)} values; "
                "wrap it in a module that returns the latents alone"
            )
        for latents in found:
            check_output("encoder", latents, None)
        latents, other = found[0], found[-1]
        if latents.shape != other.shape:
            raise ValueError(
                f"encoder: expected mean and log_variance of one shape, got {list(latents.shape)} and "
                f"{list(other.shape)}; return two tensors of the latents' shape, or the latents alone, since neither T "
                "nor a decoder is given anything besides"
            )
        self.latent_shape = tuple(latents.shape[1:])
        if self.size < 2:
            raise ValueError(
                f"encoder: expected latents of at least 2 dimensions, got shape {list(latents.shape)} for 2 images; "
                "a single number has no parts to tell apart: choose an earlier layer"
            )
        if self.decoder is not None:
            check_output("decoder", try_part("decoder", self.decoder, latents), self.image_shape)
        if head is not None:
            check_output("head", told := try_part("head", head, latents), None)
            if told.ndim != 2:
                raise ValueError(
                    f"head: expected shape [2, classes] for 2 latents, got {list(told.shape)}; "
                    "wrap it in a module that gives one number for every class"
                )
            if told.shape[1] < 2:  # of a single logit, softmax makes 1 whatever it is
                raise ValueError(
                    f"head: expected at least 2 classes, got {told.shape[1]}; for a yes or no, wrap it in a "
                    "module that gives two logits, [0, x], or two probabilities, [1 - p, p]"
                )
            # Of two different latents, since logits of one may sum to 1 by chance.
            if head_gives == "logits" and _is_softmax(told) and _is_softmax(head(latents + 1)):
                raise ValueError(
                    "head: expected logits, got numbers that sum to 1 for each item, as those behind a softmax do; "
                    "give head_gives='probabilities', or leave the softmax out"
                )

    @property
    def device(self) -> torch.device:
        """Where the weights are; the CPU where all parts are ONNX graphs."""
        first = next((value.device for value in (*self.parameters(), *self.buffers())), None)
        return first or torch.device("cpu")

    def train(self, mode: bool = True) -> "FrozenModel":
        """Stay in eval mode: a frozen model has no other."""
        return super().train(False)

    @property
    def size(self) -> int:
        """D, the number of dimensions of a latent."""
        return math.prod(self.latent_shape)

    @property
    def at_once(self) -> int:
        """Images, or their latents, that go through a part at a time: fewer large ones, so that memory is bounded."""
        return max(2, MOST_NUMBERS // math.prod(self.image_shape))  # two: what mixes a batch's rows is to show

    @property
    def has_decoder(self) -> bool:
        """Whether latents can be shown as images."""
        return self.decoder is not None

    @torch.no_grad()
    def encode(self, images: Tensor) -> Tensor:
        """Latents `(N, *latent_shape)` of images `(N, C, H, W)`: the same every time (of a distribution, the mean)."""
        return self.posterior(images)[:, 0].contiguous()

    @torch.no_grad()
    def draw(self, images: Tensor, generator: torch.Generator) -> Tensor:
        """Latents as T is to be trained on: drawn from the encoder's distribution, or `encode(images)`.

        Noise is drawn on the generator's device, so that a CPU generator gives the same on every device.
        """
        return self.sample(self.posterior(images), generator)

    def sample(self, posterior: Tensor, generator: torch.Generator) -> Tensor:
        """Latents `(N, *latent_shape)` drawn from what `posterior` gave for N images, see `draw`."""
        if not self.samples:
            return posterior[:, 0]
        mean, log_variance = posterior.unbind(dim=1)
        noise = torch.randn(mean.shape, generator=generator, device=generator.device).to(mean.device)
        return mean + noise * (0.5 * log_variance).exp()

    @torch.no_grad()
    def posterior(self, images: Tensor) -> Tensor:
        """All that the encoder says of images `(N, C, H, W)`.

        Returns:
            Mean and log-variance of latents, `(N, 2, *latent_shape)`; of an encoder that does not sample the latents,
            `(N, 1, *latent_shape)`.

        """
        if tuple(images.shape[1:]) != self.image_shape:
            raise ValueError(
                f"images: expected shape {['N', *self.image_shape]}, got {list(images.shape)}; "
                "resize them to the size that the model was made for, since that of its latents depends on it"
            )
        # Whole sets are encoded too, and a stranger's `view` needs the plain order in memory.
        most = min(AT_ONCE, self.at_once) if images.device.type == "cpu" else self.at_once
        # Copies, since a first ReLU(inplace=True) would change the caller's images.
        parts = [self.encoder(part.clone()) for part in images.contiguous().split(most)]
        stacked = [torch.stack(part, dim=1) if self.samples else part.unsqueeze(1) for part in parts]
        return stacked[0] if len(stacked) == 1 else torch.cat(stacked)

    @torch.no_grad()
    def decode(self, latents: Tensor) -> Tensor:
        """Images `(N, C, H, W)` in `value_range` of latents `(N, *latent_shape)`."""
        if self.decoder is None:
            raise ValueError("decoder: expected one to show latents as images, got none; give FrozenModel a decoder")
        return self._in_parts(self.decoder, latents)

    @torch.no_grad()
    def classify(self, latents: Tensor) -> Tensor:
        """Class probabilities `(N, classes)` of latents `(N, *latent_shape)`."""
        if self.head is None:
            raise ValueError("head: expected one that tells classes, got none; give FrozenModel a head")
        return self._in_parts(self.head, latents)

    def _in_parts(self, network: nn.Module, latents: Tensor) -> Tensor:
        parts: list[Tensor] = [network(part.clone()) for part in latents.split(self.at_once)]
        return parts[0] if len(parts) == 1 else torch.cat(parts)

    def networks(self) -> dict[str, nn.Module]:
        """By role in a bundle (encoder, decoder, head), modules of one tensor in and one out, for export."""
        parts = {"encoder": self.encoder}
        if self.samples:
            parts["encoder"] = self.encoder.mean if isinstance(self.encoder, OnnxModule) else _Mean(self.encoder)
        if self.decoder is not None:
            parts["decoder"] = self.decoder
        if self.head is not None:
            parts["head"] = self.head
        return {role: network.eval() for role, network in parts.items()}

    def digest(self) -> str:
        """Hexadecimal sha256 of all weights, of the modules' structure and source code, and of ONNX graphs.

        With them go buffers and plain attributes that no `state_dict` has, but for those that a forward changes.
        Use it so that a T is never continued on another model.
        """
        digest = hashlib.sha256(f"{self.image_shape} {self.value_range} {self.samples}".encode())
        for role, network in self.networks().items():
            whole = self.encoder if role == "encoder" else network  # of an ONNX graph also its log-variance
            graphs = [whole.digest()] if isinstance(whole, OnnxModule) else []
            # Addresses differ from run to run; the device of a cut model is in its code.
            structure = re.sub(r"0x[0-9a-f]+|device\(type='\w+'(, index=\d+)?\)", "", str(network))
            digest.update(f"{role}\n{graphs}\n{structure}\n{_code(network)}\n".encode())
            for name, value in network.state_dict().items():
                digest.update(f"{name} ".encode() + _as_bytes(value))
        for name, told in sorted(self._unsaved().items()):
            if name not in self._passing:
                digest.update(f"{name} {told}\n".encode())
        return digest.hexdigest()

    def _unsaved(self) -> dict[str, str]:
        """Hexadecimal sha256, by name, of what a forward may use that no `state_dict` has."""
        saved = self.state_dict().keys()
        found: dict[str, object] = {name: value for name, value in self.named_buffers() if name not in saved}
        for path, module in self.named_modules():
            torchs = type(module).__module__.split(".")[0] == "torch"  # whose settings are in its structure
            if path and not torchs and not isinstance(module, OnnxModule):
                found |= {f"{path}.{name}": value for name, value in vars(module).items() if name not in TORCHS_OWN}
        return {name: hashlib.sha256(_as_bytes(value)).hexdigest() for name, value in found.items()}


def _is_softmax(given: Tensor) -> bool:
    """Whether every row of `given`, `(N, classes)`, is one of probabilities."""
    return float(given.min()) >= 0 and bool(((given.sum(dim=1) - 1).abs() < 1e-3).all())


def _code(network: nn.Module) -> str:
    """Source code of the modules' classes, those of torch left out: another forward is another model."""
    code = {}
    for kind in {type(module) for module in network.modules()}:
        if kind.__module__.split(".")[0] != "torch":
            with contextlib.suppress(OSError, TypeError):  # made without a file
                code[f"{kind.__module__}.{kind.__qualname__}"] = inspect.getsource(kind)
    return "\n".join(f"{name}: {code[name]}" for name in sorted(code))


def _as_bytes(value: object) -> bytes:
    """A value as bytes, the same in every process and on every device; of functions the name, of others the kind."""
    if isinstance(value, nn.Module):  # in a plain list, where torch does not see it
        value = value.state_dict()
    if isinstance(value, Tensor):
        whole = value.detach().cpu()
        plain = (whole if whole.layout is torch.strided else whole.to_dense()).contiguous()
        numbers = plain.reshape(-1).view(torch.uint8).numpy().tobytes()
        return f"{value.dtype} {tuple(value.shape)}\n".encode() + numbers
    if isinstance(value, np.ndarray | np.generic) and not value.dtype.hasobject:
        return f"{value.dtype.str} {value.shape}\n".encode() + value.tobytes()
    if value is None or isinstance(value, bool | int | float | complex | str | bytes):
        return f"{type(value).__name__} {value!r}\n".encode()
    if isinstance(value, dict):
        items = sorted(_as_bytes(key) + _as_bytes(item) for key, item in value.items())
        return f"dict {len(items)}\n".encode() + b"".join(items)
    if isinstance(value, list | tuple):
        return f"{type(value).__name__} {len(value)}\n".encode() + b"".join(_as_bytes(item) for item in value)
    named = value if hasattr(value, "__qualname__") else type(value)
    return f"{named.__module__}.{named.__qualname__}\n".encode()
