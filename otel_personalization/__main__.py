"""The command ``otel-personalization``; says how to get what it needs where that is not there."""

import sys


def main() -> None:
    """Run the command line."""
    try:
        from otel_personalization.cli import app  # noqa: PLC0415  # where it is missing is the point
    except ModuleNotFoundError as error:
        if error.name not in ("rich", "typer"):
            raise
        sys.exit(
            f"The command line needs {error.name}, which is not installed: "
            'pip install "otel-personalization[cli]"'
        )
    app()


if __name__ == "__main__":
    main()
