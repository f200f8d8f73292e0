"""The `sdg` command: one file a command group, loaded only when that command is called."""

from __future__ import annotations

import os
import sys
from importlib import import_module

import click

from sdg._version import __version__
from sdg.errors import SdgError, first_line, path_end

# Command -> (module that defines it under the same name, help shown in the overview).
COMMANDS = {
    "demo": ("sdg.cli.demo", "The whole story on the embedded world, told in one HTML file."),
    "diagnose": ("sdg.cli.diagnose", "Find the defects of images: where, what, why and how much."),
    "app": ("sdg.cli.app", "Look, correct, repair and compare in a browser; write a Space."),
    "align": ("sdg.cli.align", "Train a generator with spatial rewards, and compare."),
    "annotate": ("sdg.cli.annotate", "Annotate pictures by people: passes, reviews, adjudication, rows."),
    "data": ("sdg.cli.data", "Check, describe, split, convert and compare annotation files."),
    "evaluate": ("sdg.cli.evaluate", "Score predicted defects against the truth with SDG-Eval."),
    "refine": ("sdg.cli.refine", "Repair images: diagnose, edit, diagnose again, keep what is better."),
    "report": ("sdg.cli.report", "Write galleries, scores and runs as one HTML file."),
    "serve": ("sdg.cli.serve", "Serve a detector, rewards or a scorer over HTTP."),
    "study": ("sdg.cli.study", "Rate two systems' pictures blindly, and count Good, Same and Bad."),
    "train": ("sdg.cli.train", "Train a detector: supervised fine-tuning, then GRPO."),
    "bench": ("sdg.cli.bench", "The paper's tables by one command each; published prompt sets."),
    "testbed": ("sdg.cli.testbed", "Generate pictures with known defects; the embedded models."),
}

# Module that a core install lacks -> the extra that brings it.
EXTRAS = {
    **dict.fromkeys(("torch", "torchvision", "transformers", "diffusers", "accelerate"), "models"),
    **dict.fromkeys(("safetensors", "peft", "yaml", "tomli_w", "huggingface_hub", "tokenizers"), "models"),
    "trl": "train",
    "httpx2": "api",
    "py3langid": "teacher",
    **dict.fromkeys(("datasets", "supervision"), "data"),
    "matplotlib": "plot",
    **dict.fromkeys(("starlette", "uvicorn", "prometheus_client"), "serve"),
    "gradio": "app",
    "google_crc32c": "bench",
    **dict.fromkeys(("rapidocr", "onnxruntime"), "ocr"),
}


class LazyGroup(click.Group):
    """A group that knows its commands by name and imports one when it is called."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, name: str) -> click.Command | None:
        if name not in COMMANDS:
            return None
        module, _ = COMMANDS[name]
        command = getattr(import_module(module), name.replace("-", "_"))
        assert isinstance(command, click.Command)
        return command

    def format_commands(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        # The overview prints the table above; importing every command for its help line would be slow.
        with formatter.section("Commands"):
            formatter.write_dl([(name, help) for name, (_, help) in COMMANDS.items()])


@click.group(
    cls=LazyGroup,
    context_settings={"help_option_names": ["-h", "--help"], "max_content_width": 110, "show_default": True},
)
@click.version_option(__version__, prog_name="sdg")
def cli() -> None:
    """Structured Defect Grounding: find, explain, measure and repair defects in generated images.

    \b
    Example:
      sdg evaluate --truth annotations.jsonl --predictions predictions.jsonl
    """


def main(args: list[str] | None = None) -> None:
    """Run the command line; what can go wrong becomes one sentence on stderr and exit code 1.

    That is an SdgError, a missing extra, and what the operating system refuses where nobody foresaw it.
    """
    from sdg.cli import terminal

    terminal.prepare()
    try:
        try:
            cli.main(args=args, prog_name="sdg", standalone_mode=True)
        finally:
            terminal.finish()
    except SdgError as error:
        reason = str(error)
    except BrokenPipeError:  # found out at the end; where it is found before, click ends as quietly
        sys.exit(1)
    except OSError as error:  # a name that no file can have, a folder one may not look into
        name = error.filename
        where = f"{path_end(os.fsdecode(name))}: " if isinstance(name, str | bytes) else ""
        reason = f"{where}{error.strerror or first_line(error)}."
    except UnicodeEncodeError as error:  # a name that this locale cannot spell, or half a surrogate pair
        reason = f"{path_end(error.object)} cannot be written in {error.encoding}; is the locale UTF-8?"
    except ModuleNotFoundError as error:
        module = (error.name or "").partition(".")[0]
        if module not in EXTRAS:
            raise
        package = f"structured-defect-grounding[{EXTRAS[module]}]"
        reason = f"This needs {module}, which is not installed: pip install '{package}'."
    terminal.say(f"sdg: {reason}")
    sys.exit(1)
