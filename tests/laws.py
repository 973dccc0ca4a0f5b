"""Laws, written once and applied to all that should obey them. Each raises AssertionError with what differs."""

import collections
import json
import multiprocessing
import re
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from typing import Any

import numpy as np
import torch

from tutorlib.facts import Facts


def same(one: Any, other: Any) -> bool:
    """Equal in type, structure, dtype, shape and value, tensors and arrays included."""
    if type(one) is not type(other):
        return False
    if isinstance(one, torch.Tensor):
        if one.dtype != other.dtype or one.is_nested != other.is_nested:
            return False
        if one.is_nested:
            return same(list(one.unbind()), list(other.unbind()))
        return one.shape == other.shape and torch.equal(one, other)
    if isinstance(one, np.ndarray):
        return one.dtype == other.dtype and np.array_equal(one, other)
    if isinstance(one, Mapping):
        return list(one) == list(other) and all(same(one[key], other[key]) for key in one)
    if isinstance(one, Sequence) and not isinstance(one, (str, bytes, range)):
        return len(one) == len(other) and all(map(same, one, other))
    return bool(one == other)


def exactly_once(shares: Iterable[Iterable[Any]], expected: Iterable[Any]) -> None:
    """All shares together hold each expected item once, and nothing else."""
    found = collections.Counter(item for share in shares for item in share)
    wanted = collections.Counter(expected)
    assert found == wanted, f"missing or repeated: {sorted((wanted - found).items())}, {sorted((found - wanted).items())}"


def resumes_anywhere(
    make: Callable[[], Any], read: Callable[[Any], Iterator[Any]], again: Callable[[], Any] | None = None
) -> None:
    """Stopped after any number of items, saved as JSON, loaded into a new object: two epochs lose and repeat nothing.

    `make` gives a new object, `read` iterates it (a loader over it, say), `again` makes the one that goes on.
    """
    whole = list(read(make()))
    for stop in range(len(whole) + 1):
        first, items = make(), []
        reading = read(first)
        for _ in range(stop):
            items.append(next(reading))
        state = json.loads(json.dumps(first.state_dict()))
        second = (again or make)()
        second.load_state_dict(state)
        assert second.state_dict() == state, f"a loaded state must come back as it was: {second.state_dict()}, {state}"
        for _ in range(2):  # the rest of this epoch, which may be none, and the next
            if len(items) < 2 * len(whole):
                items += list(read(second))
        assert same(items, 2 * whole), f"stopped after {stop} of {len(whole)}, two epochs were to be {whole}: {items}"


def round_trips(there: Callable[[Any], Any], back: Callable[[Any], Any], value: Any) -> None:
    """`back(there(value))` is `value` again."""
    found = back(there(value))
    assert same(found, value), f"{value} came back as {found}"


def survives_spawn(*calls: tuple[Callable[..., Any], tuple[Any, ...]], method: str = "spawn") -> None:
    """Each `function(*arguments)` gives the same in a spawned process, where nothing but pickles arrives."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context(method)) as process:
        for function, arguments in calls:
            there, here = process.submit(function, *arguments).result(timeout=120), function(*arguments)
            assert same(there, here), f"{function} gave {there} in a process started by {method} and {here} here"


def same_text_twice(make: Callable[[], Facts]) -> None:
    """Facts made twice say the same, in text and in HTML, with equal columns, and nothing in it is an address."""
    one, other = make(), make()
    assert str(one) == repr(one) == str(other)
    assert one._repr_html_() == other._repr_html_()
    assert len({tuple(row) for row in one.rows()}) <= 1
    assert not re.search(r"0x[0-9a-f]{6,}", str(one)), f"an address in {one}"
