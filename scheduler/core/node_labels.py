"""Which nodes a gang may start on by its `on`, and what there is instead."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable

from scheduler.core.model import Gang, Node

GPU = "gpu"
"""What a spec calls the kind of GPU ..."""
ACCELERATOR_TYPE = "ray.io/accelerator-type"
"""... and Ray, which finds it out by itself."""


def value_of(node: Node, key: str) -> str | None:
    """Of the label that a spec calls *key*."""
    return node.labels.get(ACCELERATOR_TYPE if key == GPU else key)


def matches(gang: Gang, node: Node) -> bool:
    """Whether *node* has all the labels that *gang* asks for."""
    return all(
        value_of(node, key) == wanted if isinstance(wanted, str) else value_of(node, key) in wanted
        for key, wanted in gang.on.items()
    )


def instead(gang: Gang, nodes: Iterable[Node]) -> str:
    """What nodes have that *gang* does not ask for, such as `there are 2 with gpu=A100 and 1 without gpu`."""
    found = Counter(_told(node, gang) for node in nodes)
    if not found:
        return "there is no live node"
    counts = [f"{count} {words}" for words, count in found.most_common(4)]
    more = [f"{len(found) - 4} other kinds"] if len(found) > 4 else []
    *first, last = [*counts, *more]
    return f"there {'is' if sum(found.values()) == 1 else 'are'} {', '.join(first) + ' and ' if first else ''}{last}"


def _told(node: Node, gang: Gang) -> str:
    values = {key: value_of(node, key) for key in sorted(gang.on)}
    has = ", ".join(f"{key}={value}" for key, value in values.items() if value is not None)
    return f"with {has}" if has else f"without {' and '.join(values)}"
