"""Tables as Ray Data datasets, and what a driver wants to know of them without reading them whole."""

import math
from typing import Any

import pyarrow as pa
import ray

from pipeline.errors import DataError, first_line
from pipeline.records import arrow_schema
from pipeline.storage import NamedErrors, Place, count_rows, read_columns, write_rows

ROWS_PER_BLOCK = 2048
"""Few enough that one block's long thoughts fit a worker's memory many times over."""


def read(table: Place, record: type, workers: int) -> "ray.data.Dataset":
    """A table of records, cut into enough blocks that every worker gets several."""
    rows = count_rows(table, record)  # also says what is wrong with the table, in one line
    blocks = max(1, min(rows, max(4 * workers, math.ceil(rows / ROWS_PER_BLOCK))))
    columns = arrow_schema(record).names
    return ray.data.read_parquet(table.path, filesystem=table.filesystem, columns=columns).repartition(blocks)


def actor_map(
    dataset: "ray.data.Dataset", actor: type, arguments: tuple[Any, ...], *, actors: int, cpus: float, batch_rows: int
) -> "ray.data.Dataset":
    """Map batches through actors, made once and kept. Their `__call__` takes and gives Arrow tables."""
    return dataset.map_batches(
        actor,
        fn_constructor_args=arguments,
        compute=ray.data.ActorPoolStrategy(size=actors),
        num_cpus=cpus,
        batch_size=batch_rows,
        batch_format="pyarrow",
        zero_copy_batch=True,
    )


def unnest(dataset: "ray.data.Dataset", column: str, record: type) -> "ray.data.Dataset":
    """The records in a column of a dataset: a list of them in each row, or one or none."""

    def inner(batch: pa.Table) -> pa.Table:
        return records_in(batch.column(column).combine_chunks(), record)

    return dataset.map_batches(inner, batch_format="pyarrow")


def records_in(values: pa.Array, record: type) -> pa.Table:
    """The records in an array of structs, nulls left out, or of lists of structs."""
    schema = arrow_schema(record)
    values = values.flatten() if pa.types.is_list(values.type) else values.drop_null()
    return pa.Table.from_struct_array(values).cast(schema) if len(values) else schema.empty_table()


def write_parts(dataset: "ray.data.Dataset", table: Place) -> None:
    """Write a dataset of any rows as Parquet, replacing what is there; no file where it has none.

    Raises DataError where the place cannot be written.
    """
    table.delete()
    table.make_folder()
    try:
        dataset.write_parquet(table.path, filesystem=table.filesystem)
    except OSError as error:  # Ray's error is also an instance of its cause, with a traceback as its text
        cause = getattr(error, "cause", error)
        if isinstance(cause, FileNotFoundError):
            missing = first_line(cause)
            raise DataError(f"cannot make {table.uri!r}: {missing}: something took away what it is made of") from None
        with NamedErrors(Place(cause.filename) if isinstance(cause.filename, str) else table):
            raise cause from None


def write(dataset: "ray.data.Dataset", table: Place, record: type) -> int:
    """Write a dataset of records as Parquet, replacing what is there. Returns the number of rows."""
    write_parts(dataset, table)
    if not table.files(".parquet"):
        write_rows(table, record, [])
    return count_rows(table, record)


def reasons(table: Place) -> list[str]:
    """The reasons of a table of rejected rows or of faults, one for each row."""
    found: list[str] = read_columns(table, ["reason"])["reason"].to_pylist()
    return found


def spending(table: Place) -> dict[str, Any]:
    """Tokens and dollars of a table of traces, as a manifest wants them."""
    sums = read_columns(table, ["prompt_tokens", "completion_tokens", "cost_usd"]).to_pandas().sum()
    return {
        "prompt_tokens": int(sums["prompt_tokens"]),
        "completion_tokens": int(sums["completion_tokens"]),
        "cost_usd": round(float(sums["cost_usd"]), 6),
    }
