"""A copy of a real bundle that a test may break."""

import copy
import json
import shutil
from dataclasses import asdict

import numpy as np
import pytest
from iin_bundle import BundleError, check_golden, file_entry, read_bundle
from iin_training.graphs import open_runner


class Copy:
    """A bundle directory with its manifest as plain JSON values."""

    def __init__(self, directory):
        self.directory = directory
        self.manifest = json.loads((directory / "manifest.json").read_text())

    def refusal(self):
        """The message with which loading refuses it."""
        with pytest.raises(BundleError) as caught:
            self.load()
        return str(caught.value)

    def save(self):
        (self.directory / "manifest.json").write_text(json.dumps(self.manifest))

    def _place(self, path):
        """What holds a value of the manifest, and its key there: `graphs.encoder.inputs.0.dtype` is such a path."""
        place, *steps = [self.manifest, *path.split(".")]
        for step in steps[:-1]:
            place = place[int(step) if isinstance(place, list) else step]
        return place, int(steps[-1]) if isinstance(place, list) else steps[-1]

    def set(self, path, value):
        place, key = self._place(path)
        place[key] = value
        self.save()

    def remove(self, path):
        place, key = self._place(path)
        del place[key]
        self.save()

    def entry_of(self, path):
        return asdict(file_entry(self.directory, path))

    def rehash(self):
        """Bring the manifest in line with the files as they are now."""
        for graph in self.manifest["graphs"].values():
            graph["file"] = self.entry_of(graph["file"]["path"])
        self.manifest["golden"] = self.entry_of("golden.npz")
        self.save()

    def replace_file(self, name, content):
        """Other contents with a fitting digest, so that the digest is not what is refused."""
        (self.directory / name).write_bytes(content)
        self.rehash()

    def change_golden(self, change):
        """Rewrite the golden arrays as `change` leaves them, with a fitting digest."""
        with np.load(self.directory / "golden.npz") as file:
            arrays = copy.deepcopy(dict(file))
        change(arrays)
        np.savez(self.directory / "golden.npz", **arrays)
        self.rehash()

    def load(self):
        """Everything that a service does before it serves."""
        bundle = read_bundle(self.directory)
        runs = {role: open_runner(bundle.graph_path(role)) for role in bundle.manifest.graphs}
        return check_golden(bundle, lambda role, rows: runs[role](rows))


@pytest.fixture
def bundle(digits_bundle, tmp_path):
    return Copy(shutil.copytree(digits_bundle, tmp_path / "bundle"))
