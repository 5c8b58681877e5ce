"""All settings of a run.

In: a YAML file. Out: `Config`, and for each stage its `fingerprint`: the settings that decide what the stage produces.
`settings` is the tree, with `training` for its largest part, `endpoints` and `sets` for what several stages name; `loading` reads it from a file,
`fingerprint` says what counts.
"""

from pipeline.config.endpoints import Batch, Endpoint, Price, RateLimits, Route, Sampling
from pipeline.config.fingerprint import fingerprint
from pipeline.config.loading import as_yaml, load
from pipeline.config.sets import Benchmark, Columns, Condition, Range, Scalar, Source
from pipeline.config.settings import (
    STAGES,
    Config,
    Curate,
    Distill,
    Evaluate,
    Judge,
    Reformat,
    Serve,
    Verify,
    endpoint_from_environment,
)
from pipeline.config.training import Lora, Optimization, Rope, Train

__all__ = [
    "STAGES",
    "Batch",
    "Benchmark",
    "Columns",
    "Condition",
    "Config",
    "Curate",
    "Distill",
    "Endpoint",
    "Evaluate",
    "Judge",
    "Lora",
    "Optimization",
    "Price",
    "Range",
    "RateLimits",
    "Reformat",
    "Rope",
    "Route",
    "Sampling",
    "Scalar",
    "Serve",
    "Source",
    "Train",
    "Verify",
    "as_yaml",
    "endpoint_from_environment",
    "fingerprint",
    "load",
]
