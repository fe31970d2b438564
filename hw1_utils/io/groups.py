"""What belongs together, one patient's pictures or one film's: a group is never on both sides of a split."""

import re
from collections import Counter
from collections.abc import Mapping, Sequence

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ..errors import Hw1Error, some

EXAMPLE = r"groups='(patient\d+)'"


def read_pattern(pattern: str) -> re.Pattern:
    """A regular expression whose one capturing group, or the one named `group`, says to which group a path belongs.

    Raises:
        Hw1Error: it is none, or has no such group.
    """
    try:
        read = re.compile(pattern)
    except re.error as error:
        raise Hw1Error(f"groups {pattern!r} is no regular expression ({error}): give one such as {EXAMPLE}.") from error
    if read.groups != 1 and "group" not in read.groupindex:
        raise Hw1Error(
            f"groups {pattern!r} must say in one pair of parentheses, or in one named (?P<group>…), what a group is "
            f"called: give a pattern on the path such as {EXAMPLE}."
        )
    return read


def groups_by_pattern(paths: Sequence[str], pattern: str) -> list[str]:
    """Names of the groups of N paths, relative to the data folder: what the pattern's parentheses hold.

    Raises:
        Hw1Error: the pattern is none, or does not match all paths.
    """
    read = read_pattern(pattern)
    which = "group" if "group" in read.groupindex else 1
    names = [(match := read.search(path)) and match[which] for path in paths]
    if lost := [path for path, name in zip(paths, names, strict=True) if not name]:
        found = [f"{path} → {name}" for path, name in zip(paths, names, strict=True) if name]
        fits = f"it fits {some(found, 2)}, but not" if found else "it does not fit"
        raise Hw1Error(
            f"groups {pattern!r} must find a name in every path; {fits} {some(lost, 3)} ({len(lost):,} of "
            f"{len(paths):,} paths): change the pattern, or the names."
        )
    return names


def describe_groups(names: list[str], parts: Mapping[str, Sequence[int]]) -> list[str]:
    """What is to be said: how many groups there are, and which of them lie in several parts of the user's own.

    Args:
        names: of the groups.
        parts: of each part the images' groups, as indices into `names`.

    Raises:
        Hw1Error: there is one group only.
    """
    sizes = Counter(number for numbers in parts.values() for number in numbers)
    if len(names) < 2:
        raise Hw1Error(f"All images are of one group ({some(names)}): say with groups what differs, or leave it out.")
    few, many = min(sizes.values()), max(sizes.values())
    if many == 1:
        said = [f"{len(names):,} groups of one image each: groups make no difference ({some(names, 3)})"]
    else:
        images = f"{few:,} to {many:,} images" if few < many else f"{many:,} images each"
        said = [f"{len(names):,} groups of {images}, which no split that is made here parts: {some(names, 3)}"]
    for one, other in (("train", "val"), ("train", "test"), ("val", "test")):
        if shared := set(parts.get(one, ())) & set(parts.get(other, ())):
            count = sum(number in shared for number in parts[other])
            said.append(
                f"WARNING, a leak: {len(shared):,} group{'s are' if len(shared) > 1 else ' is'} in both {one} and "
                f"{other} ({some((names[number] for number in sorted(shared)), 3)}), with {count:,} of "
                f"{len(parts[other]):,} {other} images; nothing is moved"
            )
    return said


def merged(*partitions: Sequence[int] | np.ndarray | None) -> np.ndarray | None:
    """The finest partition that cuts no group of any: int64 N, numbers from 0. None where all are None.

    Each: N numbers, of the group that each image is in. Groups of two partitions that share an image become one, and
    so on: connected components of the graph of images and groups.
    """
    given = [np.unique(numbers, return_inverse=True)[1] for numbers in partitions if numbers is not None]
    if not given:
        return None
    count, edges, nodes = len(given[0]), [], len(given[0])
    for numbers in given:
        edges.append(nodes + numbers)
        nodes += int(numbers.max(initial=-1)) + 1
    rows, columns = np.tile(np.arange(count), len(given)), np.concatenate(edges)
    graph = coo_array((np.ones(len(rows), bool), (rows, columns)), shape=(nodes, nodes))
    components = connected_components(graph, directed=False)[1][:count]
    return np.unique(components, return_inverse=True)[1].astype(np.int64)
