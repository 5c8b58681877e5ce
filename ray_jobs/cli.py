"""The command line. Arguments are parsed and checked first; heavy imports come after, in the command's own module.

A user's mistake ends in one line on stderr and exit status 2, whichever process found it.
"""

import argparse
import os
import signal
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, cast

from pipeline import config as configuration
from pipeline.config import STAGES
from pipeline.errors import ResourceError, StoppedError, UserError
from pipeline.records import CONVENTIONS, Convention

STAGE_HELP = {
    "curate": "keep problems that have a numerical answer and no copy in a benchmark",
    "reformat": "have their solutions rewritten step by step: stage-1 training text",
    "distill": "sample long thoughts from the teacher",
    "verify": "grade them again and choose those the student learns from",
    "train": "fine-tune the student in two stages",
    "serve": "put the student behind an OpenAI-compatible endpoint, until Ctrl-C",
    "evaluate": "measure accuracy against tokens",
    "report": "write the report",
}

EXAMPLES = """examples:
  longthought run --config configs/demo.yaml
  longthought run --config configs/demo.yaml --set storage.root=s3://bucket/run
  longthought distill --config configs/demo.yaml --set distill.max_samples=8
  longthought plan --config configs/paper_72b.yaml
  longthought show runs/demo curate rejected --where reason=proof --n 3
  longthought card --config configs/demo.yaml --set teacher.terms=https://example.com/terms distill
  longthought grade pairs.jsonl --workers 4 > verdicts.jsonl
  longthought teacher --replay configs/demo/traces.jsonl --port 8901 --fault 429=0.2 --fault drop=0.03

A stage that is complete is skipped. One that was made with other settings is refused, with what to do."""

GRADE_EXAMPLES = """

examples:
  longthought grade pairs.jsonl --workers 2 > verdicts.jsonl
  longthought grade runs/demo/7_evaluate/generations --conventions final_answer,math_verify,qwen_math > verdicts.jsonl

Each row gives a line of JSON for each convention; a table at the end says how accurate the answers are under each, and
how many of them it grades unlike the first. Requests that failed are no answers: they are left out."""


def main(arguments: Sequence[str] | None = None) -> None:
    """Run a command and exit: 0 done, 1 our fault, 2 the user's, 130 interrupted, 141 where nobody reads on."""
    parsed = _parser().parse_args(arguments)
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")  # else a warning at each fork
    os.environ.setdefault("VLLM_LOGGING_LEVEL", "WARNING")
    os.environ.setdefault("TQDM_DISABLE", "1")  # transformers' bars, in the middle of ours
    try:
        parsed.command(parsed)
    except BaseException as error:
        if type(error) is BrokenPipeError:  # Ray's errors are instances of their cause
            sys.stderr.close()
            sys.exit(128 + signal.SIGPIPE)
        mistake = StoppedError() if isinstance(error, KeyboardInterrupt) else find_user_error(error)
        if mistake is None:
            raise
        stopped = isinstance(mistake, StoppedError)
        print(f"{'' if stopped else 'error: '}{' '.join(str(mistake).split())}", file=sys.stderr)
        sys.exit(130 if stopped else 2)


def find_user_error(error: BaseException) -> UserError | None:
    """The user's mistake behind an exception, through the wrappers that Ray puts around it."""
    seen: list[BaseException] = []
    queue: list[BaseException | None] = [error]
    while queue:
        current = queue.pop(0)
        if current is None or current in seen:
            continue
        if isinstance(current, UserError):
            # Ray's RayTaskError is also an instance of its cause, with a traceback as its text.
            return current if type(current).__module__ == UserError.__module__ else _unwrapped(current)
        if "OutOfDiskError" in type(current).__name__:  # by name: not every command loads Ray
            return ResourceError(
                "a node's memory for Ray's objects is full, and so is the disk to which they are moved: free space there, or give nodes "
                "more (ray start --object-store-memory, --object-spilling-directory), and run again: what is paid for is kept"
            )
        seen.append(current)
        inner = getattr(current, "worker_failures", None)
        if isinstance(inner, dict):
            queue += inner.values()
        queue += [getattr(current, "cause", None), current.__cause__, current.__context__]
    return None


def _unwrapped(error: UserError) -> UserError:
    cause = getattr(error, "cause", None)
    return cause if isinstance(cause, UserError) else error


class _Parser(argparse.ArgumentParser):
    """One line for a mistake, as for every other one."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"error: {message} (see {self.prog} --help)\n")


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="longthought",
        description="Distill long reasoning from a teacher model behind an API into a student model.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add(commands, "run", "every stage in order", _run, _config_options)
    for number, stage in enumerate(STAGES, 1):
        _add(commands, stage, f"stage {number}: {STAGE_HELP[stage]}", _stage(stage), _config_options)
    _add(
        commands,
        "plan",
        "requests, dollars, GB and hours of a whole run, before anything is started",
        _plan,
        _plan_options,
    )
    _add(commands, "card", "write the dataset cards of a run's complete stages anew", _card, _card_options)
    _add(commands, "show", "rows of any table of a run, rejected ones too", _show, _show_options)
    _add(
        commands, "grade", "is each response's final answer the gold one? Rows in, verdicts out", _grade, _grade_options
    )
    _add(commands, "teacher", "an OpenAI-compatible server that replays recorded traces", _teacher, _teacher_options)
    return parser


def _add(
    commands: "argparse._SubParsersAction[_Parser]",
    name: str,
    text: str,
    command: Callable[[argparse.Namespace], None],
    options: Callable[[argparse.ArgumentParser], None],
) -> None:
    parser = commands.add_parser(
        name,
        help=text,
        description=text[0].upper() + text[1:] + ".",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    options(parser)
    parser.set_defaults(command=command)


def _config_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config", required=True, metavar="FILE", help="YAML file with the settings, e.g. configs/demo.yaml"
    )
    parser.add_argument(
        "--set", action="append", default=[], metavar="SECTION.KEY=VALUE", help="override one setting; may be repeated"
    )


def _plan_options(parser: argparse.ArgumentParser) -> None:
    _config_options(parser)
    parser.add_argument("--gpu", metavar="NAME", help="e.g. H100, H200, A100-80G (default: train.accelerator_type)")
    parser.add_argument(
        "--problems", type=_count, metavar="N", help="that curation keeps (default: counted where it can be)"
    )
    parser.add_argument("--tokens", type=_count, metavar="N", help="of one of the teacher's answers, on average")
    parser.add_argument("--right", type=_share, metavar="SHARE", help="of the teacher's answers, from 0 to 1")
    parser.add_argument("--examples", type=_count, metavar="N", help="that each stage of training learns from")
    parser.add_argument(
        "--remote",
        action="store_true",
        help="read the run's tables and its problem sets in object storage and on the hub, too",
    )
    parser.add_argument(
        "--probe", action="store_true",
        help="measure on this machine, in a minute or two, what the time depends on: steps of training, the served model, a few "
        "(paid) requests to each endpoint",
    )  # fmt: skip


def _card_options(parser: argparse.ArgumentParser) -> None:
    _config_options(parser)
    parser.add_argument("stage", nargs="?", help="only this one: curate, reformat, distill or verify")


def _show_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("root", help="the run's root: a path or URI, e.g. runs/demo")
    parser.add_argument("stage", help=f"one of {', '.join(STAGES)}")
    parser.add_argument("table", nargs="?", help="name of the table; without it, the stage's tables are listed")
    parser.add_argument(
        "--where",
        action="append",
        default=[],
        metavar="COLUMN=VALUE",
        help="only rows with this value; may be repeated",
    )
    parser.add_argument("--n", type=_count, default=5, help="how many rows (default: %(default)s)")
    parser.add_argument("--endpoint", metavar="URL", help="S3 service that is not AWS (default: $AWS_ENDPOINT_URL)")


def _grade_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "answers",
        metavar="ANSWERS",
        help="JSONL with the columns id, gold, response (- is standard input), or Parquet with the columns answer, "
        "response, such as the generations of a run",
    )
    parser.add_argument(
        "--conventions",
        type=_conventions,
        default=("final_answer",),
        metavar="NAME,...",
        help="whose rules to grade by (default: final_answer); several are compared with the first",
    )
    parser.add_argument("--workers", type=_workers, default=1, help="processes that compare (default: %(default)s)")
    parser.epilog = (
        "conventions:\n" + "\n".join(f"  {name:14}{does}" for name, does in CONVENTIONS.items()) + GRADE_EXAMPLES
    )


def _teacher_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--replay", required=True, metavar="TRACES", help="recorded traces: a .jsonl file or a table of a run"
    )
    parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
    parser.add_argument("--port", type=_port, default=8901, help="port to listen on (default: %(default)s)")
    parser.add_argument("--latency", type=float, default=0.0, metavar="S", help="seconds before each answer")
    parser.add_argument(
        "--fault",
        action="append",
        default=[],
        metavar="NAME=SHARE",
        help="share of the requests that fail: 429, 500, 503, drop, timeout, malformed, empty, no_choices, length",
    )
    parser.add_argument(
        "--retry-after", type=float, default=1.0, metavar="S", help="Retry-After of a 429 (default: %(default)s)"
    )
    parser.add_argument("--rpm", type=int, metavar="N", help="requests per minute, then 429 (default: no limit)")
    parser.add_argument("--tpm", type=int, metavar="N", help="tokens per minute, then 429 (default: no limit)")
    parser.add_argument(
        "--counted", choices=["allowed", "used"], default="allowed",
        help="which tokens of an answer count: those its request allows, or those it uses (default: %(default)s)",
    )  # fmt: skip
    parser.add_argument(
        "--batch", type=float, default=1.0, metavar="S", help="seconds that a batch takes (default: %(default)s)"
    )
    parser.add_argument("--untold", action="store_true", help="do not tell of the limits in headers")
    parser.add_argument(
        "--require-key-env", metavar="NAME", help="refuse requests without the key in this environment variable"
    )
    parser.add_argument("--seed", type=int, default=0, help="seed of the faults (default: %(default)s)")
    parser.add_argument("--log", metavar="FILE", help="append a line for each answer")
    parser.add_argument("--until-eof", action="store_true", help="stop when standard input closes")


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is no number of rows: give 0 or more")
    return int(text)


def _share(text: str) -> float:
    try:
        share = float(text)
    except ValueError:
        share = -1.0
    if not 0 <= share <= 1:
        raise argparse.ArgumentTypeError(f"{text!r} is no share: give one from 0 to 1, such as 0.8")
    return share


def _workers(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) <= 1024:
        raise argparse.ArgumentTypeError(f"{text!r} is no number of processes: give 1 or more")
    return int(text)


def _conventions(text: str) -> tuple[Convention, ...]:
    named = tuple(dict.fromkeys(text.split(",")))
    for name in named:
        if name not in CONVENTIONS:
            raise argparse.ArgumentTypeError(f"{name!r} is no convention: choose from {', '.join(CONVENTIONS)}")
    return cast(tuple[Convention, ...], named)


def _port(text: str) -> int:
    if not text.isdecimal() or not 0 < int(text) < 65536:
        raise argparse.ArgumentTypeError(f"{text!r} is no port: give one from 1 to 65535")
    return int(text)


def _run(parsed: argparse.Namespace) -> None:
    config = configuration.load(parsed.config, parsed.set)
    from ray_jobs.run import run

    run(config)


def _stage(stage: str) -> Callable[[argparse.Namespace], None]:
    def command(parsed: argparse.Namespace) -> None:
        config = configuration.load(parsed.config, parsed.set)
        from ray_jobs.run import run_one

        run_one(config, stage)

    return command


def _card(parsed: argparse.Namespace) -> None:
    config = configuration.load(parsed.config, parsed.set)
    from ray_jobs.card import write

    write(config, parsed.stage)


def _plan(parsed: argparse.Namespace) -> None:
    config = configuration.load(parsed.config, parsed.set)
    from ray_jobs.known import Told
    from ray_jobs.plan import plan

    told = Told(parsed.problems, parsed.tokens, parsed.right, parsed.examples, parsed.remote)
    plan(config, parsed.gpu, told, probed=parsed.probe)


def _show(parsed: argparse.Namespace) -> None:
    from ray_jobs.show import show

    show(parsed.root, parsed.stage, parsed.table, parsed.where, parsed.n, parsed.endpoint)


def _grade(parsed: argparse.Namespace) -> None:
    from ray_jobs.grade import grade

    grade(parsed.answers, parsed.conventions, parsed.workers)


def _teacher(parsed: argparse.Namespace) -> None:
    import asyncio

    from pipeline import replay
    from pipeline.errors import DataError

    faults = {}
    for text in parsed.fault:
        name, _, share = text.partition("=")
        try:
            faults[name] = float(share)
        except ValueError:
            raise DataError(f"--fault {text!r} is not of the form NAME=SHARE, such as 429=0.2") from None
    key = os.environ.get(parsed.require_key_env) if parsed.require_key_env else None
    if parsed.require_key_env and not key:
        raise DataError(f"--require-key-env: the environment variable {parsed.require_key_env} is not set")
    behaviour = replay.Behaviour(
        latency_s=parsed.latency,
        faults=replay.check_faults(faults),
        retry_after_s=parsed.retry_after,
        api_key=key,
        seed=parsed.seed,
        requests_per_minute=parsed.rpm,
        tokens_per_minute=parsed.tpm,
        counted=parsed.counted,
        limits_told=not parsed.untold,
        batch_s=parsed.batch,
    )
    recordings = replay.load_recordings(parsed.replay)
    asyncio.run(replay.serve(recordings, behaviour, parsed.host, parsed.port, parsed.log, until_eof=parsed.until_eof))
