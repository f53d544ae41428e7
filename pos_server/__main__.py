"""The `pos-server` command. Imports the server only when called, so that it can say what to install."""

import sys

EXIT_ERROR = 3


def main() -> int:
    """Run the command line; returns its exit status."""
    try:
        from .cli.main import main as run
    except ModuleNotFoundError as error:
        if (error.name or "").startswith("pos_"):
            raise
        problem = f"the server is not installed ({error.name} is missing)"
        print(f"pos-server: {problem}. Install it with: pip install 'pos-server[server]'", file=sys.stderr)  # noqa: T201
        return EXIT_ERROR
    return run()


if __name__ == "__main__":
    sys.exit(main())
