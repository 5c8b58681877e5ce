"""Where artifacts live: the only package that opens URIs.

In: URIs (a local path, `s3://`, `gs://`, `hf://`, or anything fsspec knows). Out: `Place`, one URI (`place`); tables of records
as Parquet (`tables`); folders of files copied to and fro (`folders`); one run at a time in a root (`hold`). `s3` asks a
busy bucket for longer than pyarrow would, `gcs` for less long; `bucket` is for what pyarrow cannot do there.
"""

from pipeline.storage.folders import fetch, fetched_path, filled, upload
from pipeline.storage.hold import confirm, held
from pipeline.storage.place import NamedErrors, Place
from pipeline.storage.tables import (
    batches,
    column_names,
    count_rows,
    iter_dicts,
    read_columns,
    read_rows,
    read_slice,
    read_table,
    rows_at,
    write_rows,
    write_table,
)

__all__ = [
    "NamedErrors",
    "Place",
    "batches",
    "column_names",
    "confirm",
    "count_rows",
    "fetch",
    "fetched_path",
    "filled",
    "held",
    "iter_dicts",
    "read_columns",
    "read_rows",
    "read_slice",
    "read_table",
    "rows_at",
    "upload",
    "write_rows",
    "write_table",
]
