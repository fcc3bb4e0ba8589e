"""The root of the command line: which commands there are, and how a run of one ends."""

from __future__ import annotations

import importlib
import os
import sys
from typing import TYPE_CHECKING, Any, NoReturn

import click

from dayjob.errors import ConfigError, DayjobError, NotSupported, PayloadError, UnknownTask

if TYPE_CHECKING:
    from collections.abc import Sequence

FAILED, MISUSED = 1, 2

_NO_ARGS: type[Exception] | tuple[()] = getattr(click.exceptions, "NoArgsIsHelpError", ())
"""Since click 8.2 a group without a command is wrong usage whose message is the help; before it just showed that."""

COMMANDS: dict[str, tuple[str, str]] = {
    "demo": ("dayjob.cli.demo", "See it work: thousands of files, one worker killed on the way."),
    "dev": ("dayjob.cli.work", "For development: migrate, then a worker that reloads."),
    "worker": ("dayjob.cli.work", "Run jobs."),
    "enqueue": ("dayjob.cli.enqueue", "Store one job by its task's name."),
    "jobs": ("dayjob.cli.jobs", "List, show, run, cancel, retry, edit, delete jobs."),
    "dead": ("dayjob.cli.dead", "The dead-letter queue: list, show, retry, discard."),
    "queues": ("dayjob.cli.queues", "List, pause, resume, drain, purge queues."),
    "limits": ("dayjob.cli.limits", "How full the limits are, and other numbers for them."),
    "breakers": ("dayjob.cli.breakers", "What is held back because something fails."),
    "workers": ("dayjob.cli.look", "The workers that are alive."),
    "stats": ("dayjob.cli.look", "Everything in numbers."),
    "events": ("dayjob.cli.look", "Follow what happens, as it happens."),
    "migrate": ("dayjob.cli.care", "Bring the store's schema up to date."),
    "doctor": ("dayjob.cli.care", "Look for what is wrong, and say how to mend it."),
    "bench": ("dayjob.cli.later", "Measure this machine."),
    "schedules": ("dayjob.cli.schedules", "List, show, set, pause, resume, trigger, reset, delete schedules."),
    "top": ("dayjob.cli.later", "A live view of queues and workers."),
    "dashboard": ("dayjob.cli.later", "Serve the dashboard."),
    "relay": ("dayjob.cli.relay", "Carry jobs from an outbox to their store."),
    "copy": ("dayjob.cli.copy", "Move jobs, settings and history to another store."),
    "audit": ("dayjob.cli.later", "Who did what, and when."),
    "check-deploy": ("dayjob.cli.later", "Would this code still understand the stored jobs?"),
}
"""Name to (module, summary); the module has the command as an attribute of that name (`check_deploy`)."""

LATER = frozenset(name for name, (module, _) in COMMANDS.items() if module == "dayjob.cli.later")


class OrderedGroup(click.Group):
    """A group whose help lists commands in the order in which they were written: the most used first."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(self.commands)


class LazyGroup(click.Group):
    """A group that knows its commands' names and summaries, and imports a command only to run it."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        module = importlib.import_module(COMMANDS[cmd_name][0])
        command: click.Command = getattr(module, cmd_name.replace("-", "_"))
        return command

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        if args and args[0] not in COMMANDS and not args[0].startswith("-"):
            import difflib

            near = difflib.get_close_matches(args[0], COMMANDS, n=2)
            hint = f" Did you mean {' or '.join(map(repr, near))}?" if near else ""
            ctx.fail(f"no command {args[0]!r}.{hint}")
        return super().resolve_command(ctx, args)

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        for title, later in (("Commands", False), ("Not part of this release", True)):
            rows = [(name, text) for name, (_, text) in COMMANDS.items() if (name in LATER) is later]
            with formatter.section(title):
                formatter.write_dl(rows)


def _version(ctx: click.Context, _: click.Parameter, value: bool) -> None:
    if value and not ctx.resilient_parsing:
        from importlib.metadata import version

        click.echo(f"dayjob {version('dayjob')} on Python {sys.version.split()[0]}")
        ctx.exit()


@click.group(cls=LazyGroup, context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 100})
@click.option("--version", is_flag=True, is_eager=True, expose_value=False, callback=_version, help="Say the version.")
def root() -> None:
    """Background jobs for Python.

    The app comes from the command's argument or --app, from DAYJOB_APP, or from [tool.dayjob] in pyproject.toml; the store
    alone from --url or DAYJOB_URL. Every option can be given as DAYJOB_<NAME>, too. Exit status: 0 done, 1 something
    failed, 2 wrong usage.
    """


def main(args: Sequence[str] | None = None) -> NoReturn:
    """Run the command line and exit the process with its status."""
    sys.exit(run(args))


def run(args: Sequence[str] | None = None) -> int:
    """Run the command line; errors become one line on stderr and a status. Returns the exit status."""
    try:
        done: Any = root.main(args=args, prog_name="dayjob", standalone_mode=False)
    except click.exceptions.Exit as ended:
        return ended.exit_code
    except click.UsageError as wrong:
        if isinstance(wrong, _NO_ARGS):  # `dayjob jobs`: the help, as it is meant to be read
            click.echo(wrong.format_message(), err=True)
            return MISUSED
        path = wrong.ctx.command_path if wrong.ctx is not None else "dayjob"
        return _complain(f"{wrong.format_message()} (see {path} --help)", MISUSED)
    except click.ClickException as failed:
        return _complain(failed.format_message(), FAILED)
    except (click.Abort, KeyboardInterrupt):
        return _complain("stopped", FAILED)
    except BrokenPipeError:
        # `dayjob jobs list | head`: the reader is gone, and so is everyone who could be told.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except (ConfigError, PayloadError, UnknownTask, NotSupported) as wrong_value:
        return _complain(str(wrong_value), MISUSED)
    except DayjobError as error:
        return _complain(str(error), FAILED)
    except Exception as bug:
        if os.environ.get("DAYJOB_DEBUG"):
            raise
        return _complain(
            f"{type(bug).__name__}: {bug} (a bug in dayjob or in your app; DAYJOB_DEBUG=1 shows where)", FAILED
        )
    return done if isinstance(done, int) else 0


def _complain(text: str, status: int) -> int:
    click.echo(f"dayjob: {' '.join(text.split())}", err=True)
    return status
