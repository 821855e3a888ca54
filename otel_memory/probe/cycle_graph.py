"""Which objects of a heap of garbage hold one another in a circle, and the shortest ways round.

Owns the graph: its bounds in time and memory, the strongly connected components (Tarjan 1972, without recursion), the
grouping of components that look alike, and the chains. What a reference is called stands in ``cycle_labels``.
"""

from __future__ import annotations

import time
from array import array
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Final

from otel_memory.probe.cycle_labels import INTERNAL, Labels, describe, is_container, type_name
from otel_memory.probe.referents import referents

MAX_DEPTH: Final = 3
"""Containers inside one another that a reference is followed through."""
MAX_STEPS_THROUGH: Final = 32
"""Owners that are followed through one container."""
MAX_OWNERS: Final = 20_000
MAX_OWNERS_OF_A_TYPE: Final = 2_000
"""Objects whose references are named, in all and of one type."""
MAX_HOLDERS: Final = 1_000
MAX_SHAPES: Final = 1_000
MAX_SEARCHED: Final = 500
"""Owners that the search for one chain visits."""
STARTS: Final = 4
"""Objects of different types from which chains of one component are looked for."""
SMALL: Final = 64
"""Objects of a component up to which two count as alike only if they have the same number of each type."""
MAX_CHAIN: Final = 400
_CHECK_EVERY: Final = 256


class Budget:
    """Time that may be used: ``seconds`` from now on, and not after ``stop()`` has become true."""

    def __init__(self, seconds: float, stop: Callable[[], bool] = lambda: False) -> None:
        self._deadline = time.monotonic() + seconds
        self._stop = stop

    def over(self) -> bool:
        return time.monotonic() >= self._deadline or self._stop()


@dataclass(frozen=True, slots=True)
class TypeCount:
    """``count`` objects of the type ``name`` were found; ``in_cycles`` of them, as far as was looked, hold the rest."""

    name: str
    count: int
    in_cycles: int


@dataclass(frozen=True, slots=True)
class Holder:
    """``count`` objects hold an object of their own cycle in this way: ``Node.children[list] -> Node``."""

    path: str
    count: int


@dataclass(frozen=True, slots=True)
class Chain:
    """One way round: ``Node.children[list] -> Node.parent -> Node``. ``cycles`` groups of objects look like this."""

    path: str
    cycles: int
    objects: int


@dataclass(frozen=True, slots=True)
class Findings:
    """What ``examine`` found out; texts and numbers only. ``incomplete`` says why there may be more."""

    types: tuple[TypeCount, ...]
    holders: tuple[Holder, ...]
    chains: tuple[Chain, ...]
    cycles: int
    objects_in_cycles: int
    examined: int
    incomplete: tuple[str, ...]


def examine(
    found: Sequence[object], max_objects: int, budget: Budget, *, types: int, holders: int, chains: int
) -> Findings:
    """Look at garbage. Keeps no reference to any of it; ``found`` must be out of every other thread's reach.

    The last three say how many of each are told at most, the most frequent first. The types of all objects are
    counted; the graph is made of the first ``max_objects``, and as far as ``budget`` lasts.
    """
    incomplete: list[str] = []
    objects = found[:max_objects]
    if len(objects) < len(found):
        incomplete.append(f"only the first {len(objects)} of {len(found)} objects were looked at for cycles")
    graph = _Graph(objects, budget)
    components = graph.components(budget)
    if graph.cut or budget.over():
        incomplete.append(f"out of time after {graph.size} of {len(found)} objects")
    labels = Labels()
    steps = _Steps(graph, labels)
    told_chains = _chains(graph, steps, components, budget, chains)
    told_holders, all_named = _holders(graph, steps, components, budget, holders)
    if not all_named:
        incomplete.append("holders were counted on a part of the objects")
    if not incomplete and budget.over():
        incomplete.append("out of time while the references were named")
    in_cycles = Counter(id(type(objects[node])) for component in components for node in component)
    kinds = dict(zip(map(id, map(type, found)), map(type, found), strict=True))
    counted = Counter(map(id, map(type, found)))
    return Findings(
        types=tuple(
            TypeCount(type_name(kinds[kind]), count, in_cycles[kind]) for kind, count in counted.most_common(types)
        ),
        holders=told_holders,
        chains=told_chains,
        cycles=len(components),
        objects_in_cycles=sum(map(len, components)),
        examined=graph.size,
        incomplete=tuple(incomplete),
    )


class _Graph:
    """Who holds whom among ``objects``, by their numbers in it, in two flat arrays."""

    def __init__(self, objects: Sequence[object], budget: Budget) -> None:
        self.objects = objects
        self.index = {id(thing): number for number, thing in enumerate(objects)}
        self._starts = array("L", [0])
        self._targets = array("L")
        self.cut = False
        get = self.index.get
        for number, thing in enumerate(objects):
            if number % _CHECK_EVERY == 0 and number and budget.over():
                self.cut = True
                break
            for held in referents(thing):
                target = get(id(held))
                if target is not None:
                    self._targets.append(target)
            self._starts.append(len(self._targets))
        self.size = len(self._starts) - 1
        """Objects that were looked at; those after them are as if they weren't there."""
        self.component_of = array("l", [-1]) * self.size

    def held_by(self, number: int) -> array[int]:
        return self._targets[self._starts[number] : self._starts[number + 1]]

    def components(self, budget: Budget) -> list[list[int]]:
        """Groups in which each object leads to each other one, those of a single object only if it holds itself.

        Out of time it returns those found until then.
        """
        size, starts, targets = self.size, self._starts, self._targets
        order = array("L", [0]) * size  # 0: not visited
        low = array("L", [0]) * size
        on_stack = bytearray(size)
        stack: list[int] = []
        found: list[list[int]] = []
        visited = 0
        for root in range(size):
            if order[root]:
                continue
            way: list[tuple[int, int]] = [(root, starts[root])]
            visited += 1
            order[root] = low[root] = visited
            stack.append(root)
            on_stack[root] = 1
            while way:
                node, edge = way.pop()
                last = starts[node + 1]
                while edge < last:
                    target = targets[edge]
                    edge += 1
                    if target >= size:
                        continue
                    if not order[target]:
                        way.append((node, edge))
                        visited += 1
                        if visited % _CHECK_EVERY == 0 and budget.over():
                            self.cut = True
                            return found
                        order[target] = low[target] = visited
                        stack.append(target)
                        on_stack[target] = 1
                        way.append((target, starts[target]))
                        break
                    if on_stack[target] and order[target] < low[node]:
                        low[node] = order[target]
                else:
                    if low[node] == order[node]:
                        self._take(node, stack, on_stack, found)
                    if way and low[node] < low[way[-1][0]]:
                        low[way[-1][0]] = low[node]
        return found

    def _take(self, root: int, stack: list[int], on_stack: bytearray, found: list[list[int]]) -> None:
        component = []
        while True:
            node = stack.pop()
            on_stack[node] = 0
            component.append(node)
            if node == root:
                break
        if len(component) > 1 or root in self.held_by(root):
            for node in component:
                self.component_of[node] = len(found)
            component.sort()
            found.append(component)


class _Steps:
    """The references inside one component from owner to owner, straight through the containers between them."""

    def __init__(self, graph: _Graph, labels: Labels) -> None:
        self._graph = graph
        self._labels = labels
        self._through: dict[tuple[int, int], tuple[tuple[str, int], ...]] = {}

    def owners(self, component: Sequence[int]) -> list[int]:
        """The objects of a component that aren't mere containers; all of them where there are no others."""
        objects = self._graph.objects
        return [node for node in component if not is_container(type(objects[node]))] or list(component)

    def of(self, owner: int) -> list[tuple[str, int]]:
        """(label, number of the owner that is held), each pair once."""
        graph = self._graph
        component = graph.component_of[owner]
        thing = graph.objects[owner]
        bare = is_container(type(thing))
        found: dict[tuple[str, int], None] = {}
        for label, held in self._labels.references(thing):
            number = graph.index.get(id(held), -1)
            if not 0 <= number < graph.size or graph.component_of[number] != component:
                continue
            if label == ".__dict__" and type(held) is dict:
                continue  # its items were named as attributes
            if bare or not is_container(type(held)):
                found[label, number] = None
            else:
                for suffix, target in self._inside(number, 1):
                    found[label + suffix, target] = None
        named = {target for label, target in found if not label.startswith(INTERNAL)}
        return [(label, target) for label, target in found if not (label.startswith(INTERNAL) and target in named)]

    def _inside(self, container: int, depth: int) -> tuple[tuple[str, int], ...]:
        known = self._through.get((container, depth))
        if known is not None:
            return known
        graph = self._graph
        component = graph.component_of[container]
        found: dict[tuple[str, int], None] = {}
        self._through[container, depth] = ()  # for a container that holds itself
        for label, held in self._labels.items(graph.objects[container], alone=False):
            number = graph.index.get(id(held), -1)
            if not 0 <= number < graph.size or graph.component_of[number] != component:
                continue
            if not is_container(type(held)):
                found[label, number] = None
            elif depth < MAX_DEPTH:
                for suffix, target in self._inside(number, depth + 1):
                    found[label + suffix, target] = None
            if len(found) >= MAX_STEPS_THROUGH:
                break
        self._through[container, depth] = steps = tuple(found)
        return steps


def _holders(
    graph: _Graph, steps: _Steps, components: list[list[int]], budget: Budget, most: int
) -> tuple[tuple[Holder, ...], bool]:
    counts: Counter[str] = Counter()
    named: Counter[int] = Counter()
    complete = True
    for looked, owner in enumerate(_all_owners(steps, components)):
        if looked >= MAX_OWNERS or (looked % 64 == 0 and budget.over()):
            return _most_common(counts, most), False
        kind = id(type(graph.objects[owner]))
        if named[kind] >= MAX_OWNERS_OF_A_TYPE:
            complete = False
            continue
        named[kind] += 1
        for path in {
            f"{describe(graph.objects[owner])}{label} -> {describe(graph.objects[target])}"
            for label, target in steps.of(owner)
        }:
            if path in counts or len(counts) < MAX_HOLDERS:
                counts[path] += 1
            else:
                complete = False
    return _most_common(counts, most), complete


def _all_owners(steps: _Steps, components: list[list[int]]) -> Iterator[int]:
    for component in components:
        yield from steps.owners(component)


def _most_common(counts: Counter[str], most: int) -> tuple[Holder, ...]:
    return tuple(Holder(path[:MAX_CHAIN], count) for path, count in counts.most_common(most))


def _chains(graph: _Graph, steps: _Steps, components: list[list[int]], budget: Budget, most: int) -> tuple[Chain, ...]:
    alike: dict[object, list[int]] = {}
    sizes: Counter[object] = Counter()
    for number, component in enumerate(components):
        counted = Counter(id(type(graph.objects[node])) for node in component)
        shape: object = frozenset(counted.items()) if len(component) <= SMALL else frozenset(counted)
        if shape in alike or len(alike) < MAX_SHAPES:
            alike.setdefault(shape, []).append(number)
            sizes[shape] += len(component)
    told: dict[frozenset[str], Chain] = {}
    for shape, objects in sizes.most_common():
        if len(told) >= most or budget.over():
            break
        numbers = alike[shape]
        for start in _starts(graph, steps.owners(components[numbers[0]])):
            way = _shortest_way_round(steps, start)
            if not way or budget.over():
                continue
            # The same way round, begun somewhere else, is no other chain.
            parts = frozenset(f"{describe(graph.objects[owner])}{label}" for owner, label in way)
            told.setdefault(parts, Chain(_written(graph, way), len(numbers), objects))
    return tuple(told.values())[:most]


def _starts(graph: _Graph, owners: list[int]) -> list[int]:
    """The first object of each type, those of the program's own classes before those of Python's."""
    first: dict[int, int] = {}
    for owner in owners:
        first.setdefault(id(type(graph.objects[owner])), owner)
    return sorted(first.values(), key=lambda owner: "." not in type_name(type(graph.objects[owner])))[:STARTS]


def _shortest_way_round(steps: _Steps, start: int) -> list[tuple[int, str]]:
    """(owner, label of the reference to the next one) from ``start`` back to it; empty if none was found."""
    came: dict[int, tuple[int, str]] = {}
    queue = deque([start])
    for _ in range(MAX_SEARCHED):
        if not queue:
            return []
        owner = queue.popleft()
        for label, target in steps.of(owner):
            if target == start:
                way = [(owner, label)]
                while way[-1][0] != start:
                    way.append(came[way[-1][0]])
                return way[::-1]
            if target not in came:
                came[target] = (owner, label)
                queue.append(target)
    return []


def _written(graph: _Graph, way: list[tuple[int, str]]) -> str:
    objects = graph.objects
    text = " -> ".join([f"{describe(objects[owner])}{label}" for owner, label in way])
    return f"{text} -> {describe(objects[way[0][0]])}"[:MAX_CHAIN]
