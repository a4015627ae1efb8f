"""Cut a trained classifier in two at a hidden layer: E up to the layer's output, G from there to the logits."""

import difflib
import logging
import warnings
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import Tensor, fx, nn

from iin_training.models.parts import check_part, try_part

__all__ = ["cut"]

REMEDY = "give encoder and head as two modules of your own instead"


@torch.library.custom_op("iin_training::cut_here", mutates_args=())
def _cut_here(value: Tensor) -> Tensor:
    """Stands in a traced graph where the cut will be."""
    return value.clone()


@_cut_here.register_fake
def _(value: Tensor) -> Tensor:
    return torch.empty_like(value)


class _Part(fx.GraphModule):
    """A graph that moves between devices with the tensors that it makes itself, for which tracing wrote one down."""

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "_Part":
        super()._apply(fn, recurse)  # type: ignore[no-untyped-call]  # torch has no types here
        for node in self.graph.nodes:
            if (device := node.kwargs.get("device")) is not None:
                node.update_kwarg("device", fn(torch.empty(0, device=device)).device)
        self.recompile()
        return self


def cut(classifier: nn.Module, path: str, *, image_shape: tuple[int, int, int]) -> tuple[nn.Module, nn.Module]:
    """E and G with `G(E(x)) == classifier(x)`, on the classifier's own weights, which are not copied.

    What is cut is the graph that `torch.export` makes of the classifier in eval mode (it is put there), the same
    that an ONNX export starts from. So whatever Python the forward consists of is followed as it runs for a batch
    of such images; both parts take batches of any size and export to ONNX.

    Args:
        classifier: maps images `(N, C, H, W)` to logits `(N, classes)`.
        path: of a module inside, as in `classifier.named_modules()`; E computes up to and including its output.
        image_shape: (C, H, W) of one image.

    Returns:
        E, images `(N, C, H, W)` to the module's output `(N, ...)`; and G, that output to logits `(N, classes)`.

    Raises:
        ValueError: where the classifier does not take such images, or torch.export cannot follow its forward; where
            there is no such module, where it is not reached exactly once, gives anything but one tensor with a row an
            image, or where other values besides its output reach the logits.

    """
    check_part("classifier", classifier)
    module = _find(classifier, path)
    place = next((value.device for value in (*classifier.parameters(), *classifier.buffers())), torch.device("cpu"))
    images = torch.zeros(2, *image_shape, device=place)
    _check_calls(classifier, module, path, images)
    traced = _trace(classifier, module, path, images)
    marks = [node for node in traced.graph.nodes if node.target is torch.ops.iin_training.cut_here.default]
    (logits,) = next(node for node in traced.graph.nodes if node.op == "output").args[0]
    if len(marks) != 1 or marks[0] not in _before([logits], []):
        raise ValueError(
            f"path: expected the logits to depend on '{path}', got logits that do not use its output, or use it inside "
            "torch.cond or its like; cut at a module on the straight way to the logits"
        )
    mark = marks[0]
    (image,) = (node for node in traced.graph.nodes if node.op == "placeholder")
    if _sizes(mark)[:1] != _sizes(image)[:1]:
        raise ValueError(
            f"path: expected '{path}' to give a row for every image, got shape {list(mark.meta['val'].shape)} for "
            f"{list(image.meta['val'].shape)}; cut at a module before the batch axis is merged with another"
        )
    (latent,) = mark.args
    assert isinstance(latent, fx.Node)
    first = _part(traced, _before([latent], []), latent, image, "image", {})
    return first, _second_part(traced, image, mark, logits, path)


def _find(classifier: nn.Module, path: str) -> nn.Module:
    names = [name for name, _ in classifier.named_modules(remove_duplicate=False) if name]
    if path in names:
        return classifier.get_submodule(path)
    near = difflib.get_close_matches(path, names, n=5, cutoff=0.3) or names[:5]
    raise ValueError(
        f"path: expected the name of a module inside {type(classifier).__name__}, got '{path}'; near it: "
        f"{', '.join(near) or 'none'}; named_modules() lists all {len(names)}"
    )


def _check_calls(classifier: nn.Module, module: nn.Module, path: str, images: Tensor) -> None:
    """One plain run: the module is called once and gives a tensor, and so does the classifier."""
    outputs: list[Any] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        with torch.no_grad():
            logits = try_part("classifier", classifier, images)
    finally:
        handle.remove()
    if len(outputs) != 1:
        raise ValueError(
            f"path: expected '{path}' to be called exactly once for an image, got {len(outputs)} calls; "
            "cut at a module that is" + (" (one that contains all the calls)" if outputs else "")
        )
    if not isinstance(outputs[0], Tensor):
        raise ValueError(
            f"path: expected '{path}' to give one tensor, got {type(outputs[0]).__name__}; "
            "cut at a module inside or after it that gives a tensor"
        )
    if not isinstance(logits, Tensor) or logits.ndim != 2 or len(logits) != len(images):
        given = list(logits.shape) if isinstance(logits, Tensor) else type(logits).__name__
        raise ValueError(
            f"classifier: expected logits as one tensor of shape [{len(images)}, classes] for {len(images)} images, "
            f"got {given}; wrap it in a module that returns the logits alone"
        )


def _trace(classifier: nn.Module, module: nn.Module, path: str, images: Tensor) -> fx.GraphModule:
    """The whole classifier as a graph of functional operations with a mark at the module's output."""
    handle = module.register_forward_hook(lambda _module, _inputs, output: _cut_here(output))
    level = logging.getLogger("torch.export").level
    logging.getLogger("torch.export").setLevel(logging.ERROR)
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of torch's own dependencies
            batch = {0: torch.export.Dim("batch", min=1)}
            program = torch.export.export(classifier, (images,), dynamic_shapes=(batch,), strict=False)
            program = program.run_decompositions({})  # no operation changes a value in place: the latent stays whole
            traced = program.module(check_guards=False)
    except Exception as error:  # torch.export raises classes of its own for every fault
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ValueError(
            f"classifier: expected a forward that torch.export follows for batches of any size, got: {reason}; change "
            f"its forward (x.shape[0] rather than len(x), no branches on values), or {REMEDY}"
        ) from error
    finally:
        handle.remove()
        logging.getLogger("torch.export").setLevel(level)
    assert isinstance(traced, fx.GraphModule)
    return traced


def _sizes(node: fx.Node) -> list[str]:
    """The shape of a tensor's node, symbols included."""
    return [str(size) for size in node.meta["val"].shape]


def _second_part(traced: fx.GraphModule, image: fx.Node, mark: fx.Node, logits: fx.Node, path: str) -> fx.GraphModule:
    sizes = _sizes(mark)
    known = {  # the batch size may have been asked of another tensor; the latent knows it as well
        node: sizes.index(str(node.meta["val"]))
        for node in traced.graph.nodes
        if node.target is torch.ops.aten.sym_size.int and str(node.meta["val"]) in sizes
    }
    needed = _before([logits], [mark, *known])
    if image in needed:
        crossing = _crossing([node for node in needed if node not in known], mark)
        further = _further(traced, image, mark, logits)
        remedy = f"cut at '{further}', or " if further else ""
        raise ValueError(
            f"path: expected everything that reaches the logits to pass through '{path}', but besides it "
            f"{', '.join(crossing)} {'does' if len(crossing) == 1 else 'do'} (a residual connection crosses the cut); "
            f"{remedy}{REMEDY}"
        )
    return _part(traced, needed, logits, mark, "latent", known)


def _further(traced: fx.GraphModule, image: fx.Node, mark: fx.Node, logits: fx.Node) -> str | None:
    """The first module after the mark whose output everything passes through; None where there is none."""
    sizes = [node for node in traced.graph.nodes if node.target is torch.ops.aten.sym_size.int]
    for node in (node for node in traced.graph.nodes if mark in _before([node], [])):
        if node in (mark, logits) or node.op == "output" or image in _before([logits], [node, *sizes]):
            continue
        for path in reversed(_modules(node)):
            if not any(path in _modules(user) for user in node.users):
                return path
    return None


def _before(ends: Iterable[fx.Node], stops: Iterable[fx.Node]) -> dict[fx.Node, None]:
    """All nodes that `ends` are computed from, going no further than `stops`."""
    found: dict[fx.Node, None] = {}
    stopping = set(stops)
    waiting = list(ends)
    while waiting:
        node = waiting.pop()
        if node not in found:
            found[node] = None
            waiting += [] if node in stopping else node.all_input_nodes
    return found


def _crossing(needed: Iterable[fx.Node], mark: fx.Node) -> list[str]:
    """Where the values come from that meet those computed from the mark."""
    after: set[fx.Node] = {mark}
    waiting = [mark]
    while waiting:
        users = [user for user in waiting.pop().users if user not in after]
        after.update(users)
        waiting += users
    from_image: set[fx.Node] = set()
    for node in mark.graph.nodes:  # in order of computation
        if node.op == "placeholder" or any(before in from_image for before in node.all_input_nodes):
            from_image.add(node)
    meeting = [node for node in needed if node in from_image - after and any(user in after for user in node.users)]
    return sorted({_origin(node) for node in meeting})


def _origin(node: fx.Node) -> str:
    if node.op == "placeholder":
        return "the image itself"
    if not isinstance(node.meta["val"], Tensor):
        return "a size taken from the image"
    paths = _modules(node)
    return f"a value of '{paths[-1]}'" if paths else "a value of the classifier's own forward"


def _modules(node: fx.Node) -> list[str]:
    """Paths of the modules that a value is computed in, the outermost first; none for the classifier's own forward."""
    stack = (path for path, _ in (node.meta.get("nn_module_stack") or {}).values())
    return [path for path in stack if path and not path.startswith("_empty")]


def _part(
    traced: fx.GraphModule,
    needed: dict[fx.Node, None],
    result: fx.Node,
    source: fx.Node,
    name: str,
    sizes: dict[fx.Node, int],
) -> fx.GraphModule:
    """The nodes needed for `result` with `source` as input; `sizes` are taken from that input's axes."""
    graph = fx.Graph()
    copied = {source: graph.placeholder(name)}
    copied[source].meta = dict(source.meta)
    for node in traced.graph.nodes:
        if node in sizes and node in needed:
            copied[node] = graph.call_function(torch.ops.aten.sym_size.int, (copied[source], sizes[node]))
            copied[node].meta = dict(node.meta)
        elif node in needed and node is not source:
            copied[node] = graph.node_copy(node, lambda inner: copied[inner])
    graph.output(copied[result])
    graph.lint()
    return _Part(traced, graph).eval()
