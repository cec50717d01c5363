"""The predictions of an evaluation as files, as ``indexnet predict data=NAME`` writes them."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from indexnet.core.errors import UserError
from indexnet.core.files import prepare_folder
from indexnet.data import Dataset
from indexnet.data.io.images import write_png
from indexnet.inference.evaluation import Row, Watch
from indexnet.inference.image_files import write_classes
from indexnet.inference.methods import Method, folder_name
from indexnet.tasks import metric_key

OPTION = "--save-predictions"


class SavedPredictions:
    """Writes what every method predicts, without a second prediction.

    Of one method ``FOLDER/NAME.png``, of several ``FOLDER/METHOD/NAME.png``; NAME begins with ``SPLIT/`` where there
    are several test splits.

    Args:
        folder: where to.
        methods: of one task, with unique captions.
        tests: the test splits by name.
        counts: how many samples of each are predicted.
        overwrite: whether files that exist are replaced.

    Raises:
        UserError: a file exists already, or is one that the data set is read from.
    """

    def __init__(
        self,
        folder: Path,
        methods: Sequence[Method],
        tests: Mapping[str, Dataset],
        counts: Mapping[str, int],
        overwrite: bool,
    ) -> None:
        self.folder, self.overwrite, self.written = folder, overwrite, 0
        self._methods = methods
        names = [folder_name(method.caption.replace(",", "")) for method in methods]
        twice = Counter(names)
        numbered = [f"{at}_{name}" if twice[name] > 1 else name for at, name in enumerate(names, start=1)]
        self.folders = [folder / name for name in numbered] if len(methods) > 1 else [folder]
        self._check(tests, counts)
        for own in self.folders:
            prepare_folder(own)

    def _check(self, tests: Mapping[str, Dataset], counts: Mapping[str, int]) -> None:
        places = [(split, dataset, at) for split, dataset in tests.items() for at in range(counts[split])]
        read = {path.resolve() for _, dataset, at in places for path in dataset.image_files(at)}
        for split, dataset, at in places:
            for folder in self.folders:
                file = folder / f"{metric_key(split, dataset.name(at))}.png"
                if file.resolve() in read:
                    raise UserError(f"{file} is an image of the data set; give another {OPTION}.")
                if os.path.exists(file) and not self.overwrite:
                    raise UserError(f"{file} exists; give --overwrite to replace it, or another {OPTION}.")

    def watch(self, method: int) -> Watch:
        """Return what :func:`indexnet.inference.evaluation.evaluate` shows the images of a method to."""
        task, folder = self._methods[method].task, self.folders[method]
        write_classes(task.classes, folder, self.overwrite)

        def save(row: Row, batch: Mapping[str, Any], prediction: Tensor) -> None:
            files = task.outputs(prediction, batch)
            for inside in sorted(files, reverse=True):  # the result itself last
                write_png(folder / inside / f"{row['name']}.png", files[inside], overwrite=self.overwrite)
            self.written += 1

        return save
