"""From training to a file and back: atomically, verified, safely, and all or nothing.

| verb | what it does |
|---|---|
| `save(path, **parts)` | writes the parts to one file; whatever happens, the earlier or the new file is whole |
| `load(path)` | reads it back, verified and without running anything that the file names |
| `save_weights(path, model)` | writes a model's weights to a safetensors file in the same way; `load` reads it |
| `inspect(path)` | says what is in it without building a tensor |
| `tensors(path, *keys)` | reads some tensors out of it, however large it is |
| `load_into(model, path)` | fills a model straight from the file: all of it or nothing, without a second copy |
| `build(make, path)` | makes a model and fills it, without initial values that are thrown away |
| `browse(model_or_state)` | says what a state holds and what it leaves out |
| `compare(model, state)` | says what would be loaded, and what would not |
| `warm_start(model, state)` | loads what fits of another model's state: as compared, or nothing |
| `without_prefix(state, prefix)` | takes a wrapper's prefix off the names, with the versions of the modules |
| `with_prefix(state, prefix)` | puts it before them |
| `match(path, **parts)` | says whose optimizer state each parameter would get, from torch and from resume |
| `resume(path, **parts)` | puts the state back into the parts: all of it, or nothing |
| `Keeper(folder)` | keeps the last ones and the best one of a training, finds the latest whole one |
| `local_path(uri)` | gives the file that a path or URI names: fetched once, whole, and checked on every use |
| `register(prefix, opener)` | teaches it, and so `load`, a scheme of one's own |
| `cached(folder)` | says what the cache holds, and which files are no longer what was fetched |
| `save_sharded(folder, **parts)` | many ranks write one folder, each its share; it is committed as a whole or not at all |
| `load_sharded(folder, **parts)` | puts it back into the parts, on any number of ranks: all of it, or nothing |
| `inspect_sharded(folder)` | says which rank wrote which bytes |
| `overwrite_killed(save)` | proves what a kill in the middle of saving costs |
| `resume_proof(make, step)` | proves that training goes on as if it had never stopped |
| `where_loaded(reads, gpus=1)` | proves on which device a load puts its tensors, without a GPU |
| `write_tagged(path, state, device)` | writes the file that a machine with that device would have written |

The file is an ordinary torch file: `torch.load(path)` reads what `save` wrote, and `load` reads what `torch.save` wrote.
"""

from __future__ import annotations

from tutorlib.checkpoint.base import CheckpointError
from tutorlib.checkpoint.browsing import Contents, browse
from tutorlib.checkpoint.direct import build, load_into, tensors
from tutorlib.checkpoint.keeping import Keeper, Kept
from tutorlib.checkpoint.matching import LoadReport, compare, warm_start, with_prefix, without_prefix
from tutorlib.checkpoint.places import Cached, cached, local_path, register
from tutorlib.checkpoint.placing import Placement, where_loaded, write_tagged
from tutorlib.checkpoint.proofs import Killed, ResumeProof, overwrite_killed, resume_proof
from tutorlib.checkpoint.reading import Inspection, inspect, load
from tutorlib.checkpoint.resuming import Batches, Matched, RandomState, Resumed, match, resume
from tutorlib.checkpoint.saving import Saved, save, save_weights
from tutorlib.checkpoint.sharded import Chunk, Saving, Shards, inspect_sharded, load_sharded, save_sharded

__all__ = [
    "Batches",
    "Cached",
    "CheckpointError",
    "Chunk",
    "Contents",
    "Inspection",
    "Keeper",
    "Kept",
    "Killed",
    "LoadReport",
    "Matched",
    "Placement",
    "RandomState",
    "ResumeProof",
    "Resumed",
    "Saved",
    "Saving",
    "Shards",
    "browse",
    "build",
    "cached",
    "compare",
    "inspect",
    "inspect_sharded",
    "load",
    "load_into",
    "load_sharded",
    "local_path",
    "match",
    "overwrite_killed",
    "register",
    "resume",
    "resume_proof",
    "save",
    "save_sharded",
    "save_weights",
    "tensors",
    "warm_start",
    "where_loaded",
    "with_prefix",
    "without_prefix",
    "write_tagged",
]
