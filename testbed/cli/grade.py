"""testbed grade, testbed matrix. What they do and say is loaded when it is wanted: testbed.cli.graded."""

from __future__ import annotations

import os
from pathlib import Path

import click
from click.core import ParameterSource

from testbed.cli.output import format_option, verbose_option

_SEEDS = click.IntRange(0, 2**32 - 1)
_jobs_option = click.option(
    "--jobs",
    type=click.IntRange(1, 256),
    default=os.cpu_count() or 1,
    show_default="one for each processor",
    help="How many to judge at once.",
)
_sandbox_option = click.option(
    "--sandbox",
    type=click.Choice(["auto", "docker", "process"]),
    default="auto",
    show_default=True,
    help="Where it runs: in a locked-up process, or in one in a container; auto: that, where an engine has our image.",
)


@click.command("grade")
@click.argument("path", metavar="FILE.py|DIR", required=False, type=click.Path(path_type=Path))
@click.option("--image", metavar="IMAGE", help="Grade a chitcpd in an image, through the wire and the UNIX protocol.")
@click.option("--only", metavar="TEST|STAGE", multiple=True, help="Only this test, or stage; again for more.")
@click.option("--weights", metavar="FILE.yaml", type=click.Path(path_type=Path), help="How many points for what.")
@click.option(
    "--seed",
    type=_SEEDS,
    help="All random choices follow from it: 1, but one is drawn for a class and for Gradescope.",
)
@_sandbox_option
@_jobs_option
@format_option
@click.option("--junit", metavar="FILE", type=click.Path(path_type=Path), help="Write JUnit's XML there, too.")
@click.option("--gradescope", metavar="FILE", type=click.Path(path_type=Path), help="Write Gradescope's results.json.")
@click.option("--html", metavar="FILE", type=click.Path(path_type=Path), help="Write a page that shows all of it.")
@click.option("-o", "--output", metavar="DIR", type=click.Path(path_type=Path), help="Of a class: where pages go.")
@click.option("--list", "list_", is_flag=True, help="Show the tests, and run none.")
@verbose_option
@click.pass_context
def grade_(
    context: click.Context,
    path: Path | None,
    image: str | None,
    only: tuple[str, ...],
    weights: Path | None,
    seed: int | None,
    sandbox: str,
    jobs: int,
    output_format: str,
    junit: Path | None,
    gradescope: Path | None,
    html: Path | None,
    output: Path | None,
    list_: bool,
) -> int:
    """Grade a TCP, or those of a whole class: stages, tests, points, and what went wrong.

    \b
    Examples:
      testbed grade my_tcp.py
      testbed grade my_tcp.py --only fast-retransmit
      testbed grade my_tcp.py --html my_tcp.html
      testbed grade submissions/ --weights weights.yaml -o grades
      testbed grade --image my-chitcpd

    A failed test shows what happened beside what should have, and how to run it again. The submission runs in a process
    of its own that can do nothing but compute (docs/grading.md), in a container where there is one. The exit status is
    1 if a test failed; of a class it is 0.
    """
    from testbed.cli import graded

    weighed = graded.weighed(weights, only)
    if list_:
        graded.tell_tests(weighed, output_format)
        return 0
    if image is not None:
        given = any(context.get_parameter_source(name) == ParameterSource.COMMANDLINE for name in ("sandbox", "jobs"))
        if path is not None or output or given:
            raise click.UsageError("--image grades one image, and takes neither FILE.py nor -o, --sandbox and --jobs")
        how = graded.how(weighed, seed, sandbox, jobs, output_format, draws=gradescope is not None)
        return graded.grade_image(image, how, everything=bool(only), junit=junit, gradescope=gradescope, html=html)
    if path is None:
        raise click.UsageError("which TCP? Name its file, or a folder with many: testbed grade my_tcp.py")
    is_class = os.path.isdir(path) and gradescope is None  # unlike Path.is_dir, no error where a name is too long
    if is_class and html:
        raise click.UsageError("--html is for one submission; a class has -o DIR")
    if output and not is_class:
        raise click.UsageError("-o is for a class; one submission has --html FILE")
    how = graded.how(weighed, seed, sandbox, jobs, output_format, draws=is_class or gradescope is not None)
    if is_class:
        return graded.grade_class(path, how, junit=junit, output=output)
    return graded.grade_one(path, how, everything=bool(only), junit=junit, gradescope=gradescope, html=html)


@click.command()
@click.argument("paths", metavar="FILE.py|DIR...", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--seed", type=_SEEDS, default=1, show_default=True, help="All random choices follow from it.")
@_sandbox_option
@_jobs_option
@format_option
@verbose_option
def matrix(paths: tuple[Path, ...], seed: int, sandbox: str, jobs: int, output_format: str) -> int:
    """Let every TCP talk to every other: who gets along with whom?

    \b
    Examples:
      testbed matrix alice.py bob.py examples/stop_and_wait.py
      testbed matrix submissions/ --format json

    Each is client and server, over a clean link and over one that loses, swaps and doubles segments; 40 kB go each way
    and must come whole. The exit status is 1 if some pair does not get along.
    """
    from testbed.cli import graded

    return graded.matrix(paths, seed=seed, sandbox=sandbox, jobs=jobs, output_format=output_format)
