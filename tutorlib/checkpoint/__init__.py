"""From training to a file and back: atomically, verified, safely, and all or nothing.

| verb | what it does |
|---|---|
| `save(path, **parts)` | writes the parts to one file; whatever happens, the earlier or the new file is whole |
| `load(path)` | reads it back, verified and without running anything that the file names |
| `inspect(path)` | says what is in it without building a tensor |
| `compare(model, state)` | says what would be loaded, and what would not |
| `resume(path, **parts)` | puts the state back into the parts: all of it, or nothing |
| `overwrite_killed(save)` | proves what a kill in the middle of saving costs |
| `resume_proof(make, step)` | proves that training goes on as if it had never stopped |

The file is an ordinary torch file: `torch.load(path)` reads what `save` wrote, and `load` reads what `torch.save` wrote.
"""

from __future__ import annotations

from tutorlib.checkpoint.base import CheckpointError
from tutorlib.checkpoint.matching import LoadReport, compare
from tutorlib.checkpoint.proofs import Killed, ResumeProof, overwrite_killed, resume_proof
from tutorlib.checkpoint.reading import Inspection, inspect, load
from tutorlib.checkpoint.resuming import RandomState, Resumed, resume
from tutorlib.checkpoint.saving import Saved, save

__all__ = [
    "CheckpointError",
    "Inspection",
    "Killed",
    "LoadReport",
    "RandomState",
    "ResumeProof",
    "Resumed",
    "Saved",
    "compare",
    "inspect",
    "load",
    "overwrite_killed",
    "resume",
    "resume_proof",
    "save",
]
