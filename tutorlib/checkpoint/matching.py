"""What a state would do to a model, before it does it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

import torch

from tutorlib.checkpoint.base import an, described, memory_of, numel, shape_of
from tutorlib.facts import Facts


@dataclass(frozen=True, repr=False)
class LoadReport(Facts):
    """What `model.load_state_dict(state)` would do: torch's words, and two more. One row for each key that has a problem.

    `loaded` fit exactly; `missing` are in the model only; `unexpected` in the state only; `shape` and `dtype` are in both
    but differ (torch refuses the first and converts the second without a word); `tied` are absent from the state but
    share their memory with a loaded key. `suggestion` is a renaming that would help, or None.
    """

    loaded: tuple[str, ...]
    missing: tuple[str, ...]
    unexpected: tuple[str, ...]
    shape: tuple[str, ...]
    dtype: tuple[str, ...]
    tied: tuple[str, ...]
    share: float
    suggestion: str | None
    inside: Mapping[str, str] = field(default_factory=dict)
    stored: Mapping[str, str] = field(default_factory=dict)

    @property
    def complete(self) -> bool:
        """Whether every key of both sides fits exactly, so that the model becomes bit-equal to what was saved."""
        return not (self.missing or self.unexpected or self.shape or self.dtype)

    def summary(self) -> str:
        text = f"{len(self.loaded)} of {len(self.inside)} tensors fit ({self.share:.0%} of the values)"
        return f"{text}; {self.suggestion}" if self.suggestion else text

    def rows(self) -> list[dict[str, object]]:
        return [
            {"key": key, "outcome": outcome, "in the model": self.inside.get(key), "in the state": self.stored.get(key)}
            for outcome in ("missing", "unexpected", "shape", "dtype", "tied")
            for key in getattr(self, outcome)
        ]

    def problems(self) -> list[str]:
        texts = [f"{key} is missing ({self.inside[key]})" for key in self.missing]
        texts += [f"{key} is unexpected ({self.stored[key]})" for key in self.unexpected]
        texts += [f"{key} is {self.stored[key]} in the file, {self.inside[key]} here" for key in (*self.shape, *self.dtype)]
        return texts


def compare(model: torch.nn.Module, state: Mapping[str, Any]) -> LoadReport:
    """Say what loading `state` into `model` would do, without changing either.

    `state` is a state_dict, or a dictionary that holds one as `model`, `model_state_dict` or `state_dict`. Raises
    `TypeError` for anything else. Claims: SL-03, SL-06, CK-05.

    >>> small, wrapped = torch.nn.Linear(3, 2), torch.nn.Sequential(torch.nn.Linear(3, 2))
    >>> compare(small, wrapped.state_dict())
    0 of 2 tensors fit (0% of the values); 100% would fit if the prefix '0.' were removed
    key       outcome     in the model    in the state
    weight    missing     float32 (2, 3)  -
    bias      missing     float32 (2,)    -
    0.weight  unexpected  -               float32 (2, 3)
    0.bias    unexpected  -               float32 (2,)
    """
    if not isinstance(model, torch.nn.Module):
        raise TypeError(f"compare needs a model and a state, the first argument is {an(model)}")
    if not isinstance(state, Mapping):
        raise TypeError(f"compare needs a state_dict, found {an(state)}: compare(model, load(path))")
    ours, theirs = model.state_dict(), _weights(state)
    inside, stored = {k: described(v) for k, v in ours.items()}, {k: described(v) for k, v in theirs.items()}
    both = [key for key in ours if key in theirs]
    shape = [k for k in both if shape_of(ours[k]) != shape_of(theirs[k])]
    dtype = [k for k in both if k not in shape and inside[k] != stored[k]]
    loaded = [k for k in both if k not in shape and k not in dtype]
    missing = [k for k in ours if k not in theirs]
    unexpected = [k for k in theirs if k not in ours]
    present = {memory_of(ours[k]) for k in loaded} - {None}
    tied = [k for k in missing if memory_of(ours[k]) in present]
    missing = [k for k in missing if k not in tied]
    total = sum(numel(v) for v in ours.values())
    share = sum(numel(ours[k]) for k in (*loaded, *tied)) / total if total else 1.0
    suggestion = _suggestion(ours, theirs, missing, unexpected, share)
    return LoadReport(
        loaded=tuple(loaded),
        missing=tuple(missing),
        unexpected=tuple(unexpected),
        shape=tuple(shape),
        dtype=tuple(dtype),
        tied=tuple(tied),
        share=share,
        suggestion=suggestion,
        inside=inside,
        stored=stored,
    )


def _weights(state: Mapping[str, Any]) -> Mapping[str, Any]:
    """The state_dict itself, wherever the common conventions put it."""
    for name in ("model", "model_state_dict", "state_dict"):
        inner = state.get(name)
        if isinstance(inner, Mapping) and not any(isinstance(value, torch.Tensor) for value in state.values()):
            return inner
    return state


def _suggestion(
    ours: Mapping[str, Any], theirs: Mapping[str, Any], missing: Sequence[str], unexpected: Sequence[str], share: float
) -> str | None:
    """One prefix to remove or to add that would make more of the values fit."""
    candidates: Counter[tuple[str, str]] = Counter()
    wanted: dict[str, list[str]] = {}
    for key in missing:
        wanted.setdefault(key.rsplit(".", 1)[-1], []).append(key)
    for theirs_key in unexpected:
        for ours_key in wanted.get(theirs_key.rsplit(".", 1)[-1], ()):
            if shape_of(ours[ours_key]) != shape_of(theirs[theirs_key]):
                continue
            for verb, long, short in (("removed", theirs_key, ours_key), ("added", ours_key, theirs_key)):
                if long.endswith("." + short):
                    candidates[verb, long.removesuffix(short)] += numel(ours[ours_key])
    if not candidates:
        return None
    (verb, prefix), gain = max(candidates.items(), key=lambda item: (item[1], item[0]))
    after = share + gain / max(1, sum(numel(v) for v in ours.values()))
    return f"{after:.0%} would fit if the prefix {prefix!r} were {verb}"
