"""Stage 8 on a cluster: it needs none. Reads the run, writes the page, prints the results table."""

from pipeline.config import Config
from pipeline.report import render, terminal
from pipeline.report.results import Results
from pipeline.report.summary import summarize
from pipeline.report.tables import RunTables
from pipeline.stage import Manifest, StageFolder, StageRun, root_of


def run(config: Config) -> Manifest:
    """Write `index.html`, `report.md` and `report.json`. A run may lack stages, but not `evaluate`."""
    tables = RunTables(root_of(config))
    StageFolder(tables.root, "evaluate").require()
    stage = StageRun(config, "report", inputs=tables.manifests())
    if stage.complete:
        return stage.complete
    summary = summarize(config, tables)
    for name, data in render.files(summary).items():
        (stage.folder.place / name).write(data)
    return stage.finish(rows_in=summary.scores, rows_out=summary.scores, tables={})


def results(config: Config) -> Results:
    """The results of a run whose report is made."""
    return render.results_from_json((StageFolder(root_of(config), "report").place / "report.json").read())


def show(config: Config) -> None:
    """Print where the page is, and the results table as the last lines."""
    place = StageFolder(root_of(config), "report").place / "index.html"
    print(f"report: {place.uri}\n\n{terminal.results_table(results(config))}", end="", flush=True)
