"""The `pos-server` command. It imports the server late, so that a missing package is reported with a remedy."""

import sys

EXIT_ERROR = 3


def main() -> int:
    """Run the command line and return its exit status."""
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
