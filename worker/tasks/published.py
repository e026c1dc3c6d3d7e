"""Divisions of classes as they were published, and how they are laid over what a file holds.

References:
    Ravi, Larochelle, "Optimization as a Model for Few-Shot Learning", 2017: the 64 / 16 / 20
    classes of miniImageNet, as WordNet ids (the files train.csv, val.csv, test.csv that came with
    it and are handed on since, for example in sicara/easy-few-shot-learning).
    Bertinetto, Henriques, Torr, Vedaldi, "Meta-learning with differentiable closed-form solvers",
    2019: CIFAR-FS, 64 / 16 / 20 classes of CIFAR-100 (as in tristandeleu/pytorch-meta).
    Oreshkin, Rodriguez, Lacoste, "TADAM: Task dependent adaptive metric for improved few-shot
    learning", 2018: FC100, 12 / 4 / 4 superclasses of CIFAR-100 (as in tristandeleu/pytorch-meta).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from dmaml.common.config import RunConfig
from dmaml.common.errors import ConfigError, DataError
from dmaml.common.seeds import Int64
from dmaml.worker.tasks.base import SPLITS

Division = tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]  # train, validation, test


def _division(train: str, validation: str, test: str) -> Division:
    return tuple(train.split()), tuple(validation.split()), tuple(test.split())


MINIIMAGENET: Final = _division(
    """
    n01532829 n01558993 n01704323 n01749939 n01770081 n01843383 n01910747 n02074367
    n02089867 n02091831 n02101006 n02105505 n02108089 n02108551 n02108915 n02111277
    n02113712 n02120079 n02165456 n02457408 n02606052 n02687172 n02747177 n02795169
    n02823428 n02966193 n03017168 n03047690 n03062245 n03207743 n03220513 n03337140
    n03347037 n03400231 n03476684 n03527444 n03676483 n03838899 n03854065 n03888605
    n03908618 n03924679 n03998194 n04067472 n04243546 n04251144 n04258138 n04275548
    n04296562 n04389033 n04435653 n04443257 n04509417 n04515003 n04596742 n04604644
    n04612504 n06794110 n07584110 n07697537 n07747607 n09246464 n13054560 n13133613
    """,
    """
    n01855672 n02091244 n02114548 n02138441 n02174001 n02950826 n02971356 n02981792
    n03075370 n03417042 n03535780 n03584254 n03770439 n03773504 n03980874 n09256479
    """,
    """
    n01930112 n01981276 n02099601 n02110063 n02110341 n02116738 n02129165 n02219486
    n02443484 n02871525 n03127925 n03146219 n03272010 n03544143 n03775546 n04146614
    n04149813 n04418357 n04522168 n07613480
    """,
)
CIFAR_FS: Final = _division(
    """
    apple aquarium_fish bear bee bottle bowl boy bridge bus can castle caterpillar chair
    clock cloud cockroach couch cup dinosaur dolphin elephant forest girl hamster house
    kangaroo keyboard lawn_mower lion lizard lobster mountain mouse mushroom oak_tree
    orange orchid palm_tree pear pine_tree plate porcupine possum rabbit raccoon ray
    road seal shrew skunk skyscraper snake spider squirrel streetcar sunflower tank
    tiger train trout tulip turtle willow_tree wolf
    """,
    """
    beaver beetle butterfly camel cattle crab crocodile flatfish lamp maple_tree
    motorcycle otter sea shark television tractor
    """,
    """
    baby bed bicycle chimpanzee fox leopard man pickup_truck plain poppy rocket rose
    snail sweet_pepper table telephone wardrobe whale woman worm
    """,
)
FC100: Final = _division(
    """
    fish flowers food_containers fruit_and_vegetables household_electrical_devices
    household_furniture large_man-made_outdoor_things large_natural_outdoor_scenes
    reptiles trees vehicles_1 vehicles_2
    """,
    """
    large_carnivores large_omnivores_and_herbivores non-insect_invertebrates
    small_mammals
    """,
    """
    aquatic_mammals insects medium_mammals people
    """,
)


def divide_as_published(
    names: Sequence[str], division: Division, config: RunConfig, path: Path
) -> Int64:
    """Return the split of each class, int64 `[C]`, that a published division gives its name.

    Args:
        names: what the division goes by, per class.
        division: the names of train, validation and test.
        config: the run's.
        path: of the data, for errors.

    Raises:
        ConfigError: `task.splits` vinyals, which is Omniglot's.
        DataError: a class that is in no part, or a part without classes.
    """
    if config.task.splits == "vinyals":
        raise ConfigError(
            f"task.splits 'vinyals' with task.source {config.task.source!r}: it is a division of "
            "omniglot. Set task.splits to default: the published one."
        )
    code_of = {name: code for code, part in enumerate(division) for name in part}
    unknown = [name for name in names if name not in code_of]
    if unknown:
        raise DataError(
            f"{str(path)!r}: class {unknown[0]!r} (and {len(unknown) - 1} others) of {len(names)} "
            f"is not in the published division of {config.task.source!r}. Take the original set, "
            "or task.source folder:PATH or npz:PATH, which divide by seed."
        )
    codes = np.array([code_of[name] for name in names], dtype=np.int64)
    missing = sorted(set(range(3)) - set(codes.tolist()))
    if missing:
        raise DataError(
            f"{str(path)!r} has {len(names)} classes, none of them in part "
            f"{SPLITS[missing[0]]!r} of the published division of {config.task.source!r}. "
            "Take the whole set."
        )
    return codes
