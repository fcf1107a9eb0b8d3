"""`twofold airflow`: Airflow's own command line, in the environment of the stack's Airflow.

twofold airflow … ──exec──► python -m airflow …    same process: signals and exit code pass through
"""

from __future__ import annotations

import click

from twofold.commands.become import become
from twofold.settings import Settings
from twofold.stack.airflow_programs import airflow_environment, require_up


@click.command(
    context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False, "help_option_names": []},
)
@click.argument("arguments", nargs=-1, type=click.UNPROCESSED)
@click.pass_obj
def airflow(settings: Settings, arguments: tuple[str, ...]) -> None:
    """Run a command of Airflow in the environment of the embedded stack's Airflow; the stack must be up.

    \b
    Examples:
      twofold airflow dags list
      twofold airflow dags list-import-errors
      twofold airflow dags trigger flights_union
      twofold airflow tasks test flights_batch land    # one task, here and now, without the scheduler
      twofold airflow dags test flights_union          # one whole run of a DAG, here and now
    """
    if arguments in ((), ("--help",), ("-h",)):
        context = click.get_current_context()
        click.echo(context.get_help())
        context.exit(0)
    require_up(settings)
    become(settings, "airflow", *arguments, environment=airflow_environment(settings))
